"""Run as a program: the media thread with several sessions on the virtual card, until it is ended.

python -m bench.sessions OUR_ADDRESS FAR_ADDRESS FAR_PORT...     prints our ports as JSON
"""

import asyncio
import json
import sys

from doorboard.alsa import AlsaAudioPort
from doorstation.ids import SystemIds
from doorstation.net.media.thread import MediaThread
from doorstation.sdp.negotiation import LocalAudio, OfferAnswer


async def main(ours: str, far: str, ports: list[str]) -> None:
    loop = asyncio.get_running_loop()
    media = MediaThread(lambda: AlsaAudioPort("vcard", rate=8000), loop, lambda _: None)
    used = []
    for port in ports:
        session = media.start_session(ours)
        agreed = OfferAnswer(SystemIds(), LocalAudio(ours, session.rtp_port))
        agreed.answer(
            f"v=0\r\no=- 1 1 IN IP4 {far}\r\ns=-\r\nc=IN IP4 {far}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n".encode()
        )
        assert agreed.session is not None
        session.configure(agreed.session)
        used.append(session.rtp_port)
    print(json.dumps(used), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
