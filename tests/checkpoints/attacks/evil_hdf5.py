"""Makes HDF5 files by hand, so that they can say what no library would write."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

MAGIC = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1
FLOAT32 = bytes.fromhex("11201f00 04000000 00002000 17080017 7f000000")
ROOT = 96


class Builder:
    """Appends structures to a file; the root group's header comes at `ROOT`."""

    def __init__(self) -> None:
        self.content = bytearray(ROOT + 16 + 24)

    def add(self, data: bytes) -> int:
        """Put `data` behind what is there and return its address."""
        address = len(self.content)
        self.content += data + bytes(-len(data) % 8)
        return address

    def header(self, messages: Iterable[tuple[int, bytes]], *, count: int | None = None) -> bytes:
        parts = [(kind, data + bytes(-len(data) % 8)) for kind, data in messages]
        body = b"".join(struct.pack("<HHB3x", kind, len(data), 0) + data for kind, data in parts)
        return struct.pack("<BxHII4x", 1, len(parts) if count is None else count, 1, len(body)) + body

    def dataset(self, address: int, size: int, shape: tuple[int, ...], *more: tuple[int, bytes]) -> int:
        """The header of a contiguous float32 dataset."""
        layout = struct.pack("<BBQQ", 3, 1, address, size)
        return self.add(self.header([(1, space(shape)), (3, FLOAT32), (8, layout), *more]))

    def chunked(self, tree: int, shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
        """The header of a float32 dataset cut in `chunk`, compressed by gzip."""
        layout = struct.pack(f"<BBBQ{len(chunk) + 1}I", 3, 2, len(chunk) + 1, tree, *chunk, 4)
        gzip = struct.pack("<BB6xHHHHI4x", 1, 1, 1, 0, 1, 1, 4)
        return self.add(self.header([(1, space(shape)), (3, FLOAT32), (8, layout), (11, gzip)]))

    def table(self, links: Mapping[str, int], *, cached: int = 0) -> bytes:
        """What a group's header says: the addresses of a tree of its links, sorted, and of a heap of their names."""
        names, offsets = bytearray(8), []
        for name in links:
            offsets.append(len(names))
            names += name.encode() + b"\0"
        heap = self.heap(bytes(names))
        entries = [
            struct.pack("<QQI20x", offset, address, cached)
            for offset, address in zip(offsets, links.values(), strict=True)
        ]
        leaves = [self.symbols(entries[at : at + 60_000]) for at in range(0, len(entries), 60_000)]
        return struct.pack("<QQ", self.tree(leaves, last=offsets[-1]), heap)

    def heap(self, names: bytes) -> int:
        data = self.add(names)
        return self.add(struct.pack("<4sB3xQQQ", b"HEAP", 0, len(names), 1, data))

    def symbols(self, entries: list[bytes]) -> int:
        return self.add(struct.pack("<4sBxH", b"SNOD", 1, len(entries)) + b"".join(entries))

    def tree(self, children: Iterable[int], *, level: int = 0, kind: int = 0, last: int = 0) -> int:
        nodes = list(children)
        entries = b"".join(struct.pack("<QQ", 0, child) for child in nodes)
        head = struct.pack("<4sBBHQQ", b"TREE", kind, level, len(nodes), UNDEFINED, UNDEFINED)
        return self.add(head + entries + struct.pack("<Q", last))

    def group(self, links: Mapping[str, int]) -> int:
        """The header of a group."""
        return self.add(self.header([(0x11, self.table(links))]))

    def file(self, root: bytes) -> bytes:
        """The whole file, whose root group's header says `root`."""
        header = self.header([(0x11, root)])
        self.content[ROOT : ROOT + len(header)] = header
        self.content += bytes(1024)  # the library reads nodes at their full size
        end = len(self.content)
        symbol = struct.pack("<QQI20x", 0, ROOT, 0)
        self.content[:ROOT] = (
            struct.pack("<8s8BHHI4Q", MAGIC, 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, UNDEFINED, end, UNDEFINED) + symbol
        )
        return bytes(self.content)


def space(shape: tuple[int, ...]) -> bytes:
    """The message that tells a shape."""
    return struct.pack(f"<BB6x{len(shape)}Q", 1, len(shape), *shape)
