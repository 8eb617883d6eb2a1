"""A gzip reader with the weaknesses of the original's, built from their description alone.

The original (gaterpc 0.1) reads HugeData frame by frame, takes at most 1000 bytes out of its
decompressor at a time, and treats a step without output as the end of a stream that is not complete.
It skips FEXTRA and FHCRC, and FNAME and FCOMMENT one byte short. The trailer has to be in one frame.

As a program: fragile_gunzip.py FOLDER reads *.frames there, files of frames that each follow their
length (u32 LE), and prints for each its name, and "ok" with size and CRC-32 or the name of the error.
"""

import os
import struct
import sys
import zlib

FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16
STEP = 1000


class FragileGunzip:
    def __init__(self):
        self.inflate = None
        self.eof = False
        self.crc = 0
        self.size = 0

    def _skip_header(self, data):
        magic, method, flags = struct.unpack("<HBB", data[:4])
        if magic != 0x8B1F or method != 8:
            raise ValueError("not a gzip stream")
        struct.unpack("<IBB", data[4:10])
        at = 10
        if flags & FEXTRA:
            (length,) = struct.unpack("<H", data[at:at + 2])
            at += 2 + length
        for flag in (FNAME, FCOMMENT):
            if flags & flag:
                at = data.index(b"\0", at)  # and the zero is left
        if flags & FHCRC:
            at += 2
        return data[at:]

    def _read_trailer(self, data):
        crc, size = struct.unpack("<II", data[:8])
        if crc != self.crc or size != self.size & 0xFFFFFFFF:
            raise ValueError("checksum or size is wrong")
        self.eof = True

    def frame(self, data):
        """Everything that this frame gives."""
        if self.inflate is None:
            data = self._skip_header(data)
            self.inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        parts = []
        while not self.eof:
            part = self.inflate.decompress(data, STEP)
            self.crc = zlib.crc32(part, self.crc)
            self.size += len(part)
            parts.append(part)
            if self.inflate.eof:
                self._read_trailer(self.inflate.unused_data)
            elif not part:
                raise EOFError("Compressed data ended before the end-of-stream marker")
            data = self.inflate.unconsumed_tail
            if not data:
                break
        return b"".join(parts)


def gunzip(frames):
    reader = FragileGunzip()
    data = b"".join([reader.frame(frame) for frame in frames])
    if not reader.eof:
        raise EOFError("no end")
    return data


def read_frames(path):
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4:at + 4 + length]
        at += 4 + length


def main(folder):
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".frames"):
            continue
        try:
            data = gunzip(read_frames(os.path.join(folder, name)))
            print(name, "ok", len(data), zlib.crc32(data))
        except (EOFError, ValueError, zlib.error, struct.error) as error:
            print(name, type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1])
