"""The claim page's life: there while the settings name a port for it and the door has no owner.

For half an hour after a claim by first use it stays, without its form, and says whose the door is.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from doorstation.configurator import Configurator
from doorstation.errors import DoorstationError, StoreError
from doorstation.ids import Ids
from doorstation.net.tls import TlsFiles, server_context
from doorstation.net.visits import listening
from doorstation.provision.claim import Attempts
from doorstation.provision.jws import PublicKey
from doorstation.provision.layers import Change
from doorstation.provisioner import FirstUse, first_use

log = logging.getLogger(__name__)

AGAIN: Final = 60.0
"""Seconds until a page that could not be served is tried again: its port may be free then."""


class Claiming:
    """Takes an owner's key from who types the claim code."""

    def __init__(
        self, configurator: Configurator, ids: Ids, is_claimed: Callable[[], bool]
    ) -> None:
        self._configurator = configurator
        self._ids = ids
        self._is_claimed = is_claimed
        self._changed = asyncio.Event()
        configurator.followers.append(lambda kind, number, why: self._changed.set())

    async def run(self) -> None:
        """For ever."""
        told = ""
        while True:
            self._changed.clear()
            port, news = wanted = self._wanted
            try:
                async with self._page(port, news) if port else contextlib.nullcontext():
                    told = ""
                    while self._wanted == wanted:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(news.left if news is not None else None):
                                await self._changed.wait()
                        self._changed.clear()
            except (OSError, DoorstationError) as fault:
                if told != str(fault):
                    told = str(fault)
                    log.warning("claim page on port %d: %s", port, fault)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN):
                        await self._changed.wait()

    @property
    def _wanted(self) -> tuple[int, FirstUse | None]:
        """(the page's port, 0 for no page; what it says in place of its form)."""
        configurator = self._configurator
        news = first_use(configurator)
        if configurator.closed or (self._is_claimed() and news is None):
            return 0, None
        return configurator.settings.provisioning.claim_port, news

    @contextlib.asynccontextmanager
    async def _page(self, port: int, news: FirstUse | None) -> AsyncIterator[None]:
        try:
            from aiohttp import web

            from doorstation.web.claim_page import claim_app, notice_app
        except ImportError:
            raise DoorstationError(
                'aiohttp is not installed: pip install "doorstation[web]"'
            ) from None
        configurator = self._configurator
        configurator.identify(self._ids)
        file = await configurator.identity_file()
        if file is None:
            raise StoreError(configurator.fault)
        own = configurator.identity(self._ids)
        attempts = Attempts(own.claim_code)

        async def claim(code: str, key: str, url: str) -> tuple[int, str]:
            return await self._claim(attempts, code, key, url)

        facts = {"door": own.door, "fingerprint": own.public.fingerprint}
        if news is None:
            app, until = claim_app(facts, claim), "until the door has an owner"
        else:
            app, until = notice_app(facts, lambda: str(news)), "to say who claimed the door"
        context = server_context(TlsFiles(certificate=str(file)))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        assert runner.server is not None, "set up"
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(listening(port, runner.server, context))
            except OSError as fault:
                raise DoorstationError(os.strerror(fault.errno or 0)) from fault
            finally:
                stack.push_async_callback(runner.cleanup)  # answers leave before all is cut
            log.info("claim page on port %d, %s", port, until)
            yield
            log.info("claim page ended")

    async def _claim(self, attempts: Attempts, code: str, key: str, url: str) -> tuple[int, str]:
        if self._is_claimed():
            return 410, "This door has an owner."
        verdict = attempts.typed(code, asyncio.get_running_loop().time())
        if verdict == "wrong":  # never what is not looked at: there is no end to that
            self._configurator.audit("claim", {"result": verdict}, done=False)
        match verdict:
            case "wait":
                return 429, "Too many wrong codes: none is looked at for a minute."
            case "wrong":
                return 403, "That is not this door's claim code."
        try:
            kid = PublicKey.parse(key).kid
        except ValueError as fault:
            return 422, f"Owner's key: {fault}."
        change: dict[str, Any] = {"keys.owner": {"public": key, "role": "owner"}}
        if url:
            change["provisioning.url"] = url
        try:
            await self._configurator.stage(
                Change(change), by="claim code", how="claim page", needs_word=False
            )
        except DoorstationError as fault:
            return 409, f"Not taken: {fault}"
        log.warning("key %s is this door's owner now, by the claim code", kid)
        fields = {"kid": kid, "rule": "claim code", "url": url}
        self._configurator.audit("owner", fields)
        self._configurator.record("owner", fields)
        return 200, f"Done: key {kid} is this door's owner, and this page ends."
