"""Sound and its packets, without sockets, threads or clocks.

a call          engine.py, in the words of session.py; how it was: verdict.py, quality.py
packets         rtp.py, rtcp.py; protection.py with srtp.py and dtls.py
codecs          codec.py, codecs.py: g711.py, g722.py, opus.py, l16.py; comfort_noise.py
what arrives    jitter.py with slack.py, timescale.py, conceal.py
digits          digits.py, inband.py
card and calls  path.py: echo.py with reference.py, delay.py; levels.py
the door's own  tones.py, wav.py; selftest.py; recording.py
arithmetic      pcm.py, resample.py, speexdsp.py
"""
