"""A loopback TCP proxy in front of a store: it sees what passes, and is where a fault strikes."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

CHUNK = 1 << 18


def close(side: socket.socket) -> None:
    """Ends a connection, and wakes whoever reads from it."""
    for step in (lambda: side.shutdown(socket.SHUT_RDWR), side.close):
        with suppress(OSError):
            step()


def reset(side: socket.socket) -> None:
    """Ends a connection as if the peer's machine had gone."""
    with suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(side)


class Trap:
    """Strikes once: where a message that matches passes, `before` it is handed on or `after` its answer came.

    No message counts until one like `begun` has passed. `strike` returns whether the connection lives on.
    """

    def __init__(self, pattern: str, side: str, strike: Callable[[], bool], begun: str = "") -> None:
        self.pattern, self.side, self.strike = re.compile(pattern.encode(), re.M), side, strike
        self.begun = re.compile(begun.encode()) if begun else None
        self.found, self.lock = b"", threading.Lock()
        self.struck, self.done = threading.Event(), threading.Event()

    def caught(self, message: bytes) -> bool:
        """Whether this is the message; it is one only."""
        with self.lock:
            if self.found or not (self.begun is None or self.begun.search(message)):
                return False
            self.begun = None
            if self.pattern.search(message):
                self.found = message[:2000]
            return bool(self.found)


class Proxy:
    """Hands on bytes between clients and one port; a context manager that listens while it is entered."""

    def __init__(self, port: int) -> None:
        self.target, self.lock = port, threading.Lock()
        self.trap: Trap | None = None
        self.refused: re.Pattern[bytes] | None = None  # messages that end their connection
        self.delay = 0.0  # seconds that each piece of data takes longer
        self.passed: list[bytes] | None = None  # where somebody wants to know what passes
        self.pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.cut()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                reset(client)
                continue
            for side in (client, server):
                side.settimeout(None)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self.lock:
                self.pairs.add(pair)
            waiting: list[Trap] = []  # for the answer to what has passed on this connection
            for source, sink, see in ((client, server, self.ask), (server, client, self.answer)):
                arguments = (source, sink, see, waiting, pair)
                threading.Thread(target=self.pump, args=arguments, daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, see: Callable[..., bool], waiting: list, pair: tuple):
        try:
            while data := source.recv(CHUNK):
                if self.delay:
                    time.sleep(self.delay)
                if not see(data, waiting):
                    break
                sink.sendall(data)
            else:
                return self.drop(pair, end=close)
        except OSError:
            pass
        self.drop(pair)

    def ask(self, message: bytes, waiting: list[Trap]) -> bool:
        """A message from a client; False ends the connection."""
        if self.passed is not None:
            self.passed.append(message[:2000])
        if self.refused and self.refused.search(message):
            return False
        trap = self.trap
        if trap is None or not trap.caught(message):
            return True
        if trap.side == "after":
            waiting.append(trap)
            return True
        return spring(trap)

    def answer(self, answer: bytes, waiting: list[Trap]) -> bool:
        """The first of what comes back for a message, which of HTTP's "go on" there is none."""
        if answer.startswith(b"HTTP/1.1 100"):
            return True
        return spring(waiting.pop()) if waiting else True

    def cut(self) -> None:
        """Ends all connections there are."""
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            self.drop(pair)

    def drop(self, pair: tuple[socket.socket, socket.socket], end: Callable[[socket.socket], None] = reset) -> None:
        with self.lock:
            self.pairs.discard(pair)
        for side in pair:
            end(side)


def spring(trap: Trap) -> bool:
    trap.struck.set()
    try:
        return trap.strike()
    finally:
        trap.done.set()
