import asyncio
import socket

from doorstation.net.datagrams import receive


def bound() -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    link.bind(("127.0.0.1", 0))
    return link


async def test_each_datagram_is_given_with_its_source_whether_it_waits_or_is_waited_for() -> None:
    with bound() as here, bound() as there:
        there.sendto(b"first", here.getsockname())
        there.sendto(b"second", here.getsockname())
        assert await receive(here, 100) == (b"first", there.getsockname())
        assert await receive(here, 100) == (b"second", there.getsockname())
        asking = asyncio.create_task(receive(here, 100))
        await asyncio.sleep(0)
        there.sendto(b"third", here.getsockname())
        assert await asking == (b"third", there.getsockname())


async def test_who_waits_no_more_leaves_no_watch_on_the_socket() -> None:
    with bound() as here:
        try:
            async with asyncio.timeout(0):
                await receive(here, 100)
        except TimeoutError:
            pass
        assert not asyncio.get_running_loop().remove_reader(here)


async def test_a_datagram_that_comes_when_nobody_waits_any_more_is_no_fault() -> None:
    loop, faults = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda loop, context: faults.append(context))
    with bound() as here, bound() as there:
        asking = asyncio.create_task(receive(here, 100))
        await asyncio.sleep(0)
        there.sendto(b"late", here.getsockname())
        loop.call_soon(asking.cancel)
        await asyncio.gather(asking, return_exceptions=True)
    assert faults == []
