"""Python's own modules as independent readers and writers: codecs.py FOLDER.

Each FOLDER/<name>.<codec> is decompressed and compared with FOLDER/<name>.raw; then every .raw is
compressed at several levels to FOLDER/<name>.<level>.<codec>-py. Prints "read N, wrote M".
"""

import bz2
import gzip
import lzma
import os
import sys
import zlib

READ = {
    "gzip": gzip.decompress,
    "zlib": zlib.decompress,
    "bz2": bz2.decompress,
    "lzma": lzma.decompress,
}

WRITE = {
    "gzip": lambda data, level: gzip.compress(data, level),
    "zlib": lambda data, level: zlib.compress(data, level),
    "bz2": lambda data, level: bz2.compress(data, max(level, 1)),
    "lzma": lambda data, level: lzma.compress(data, preset=level),
}


def load(path):
    with open(path, "rb") as file:
        return file.read()


def main(folder):
    read = wrote = 0
    for name in sorted(os.listdir(folder)):
        stem, _, kind = name.rpartition(".")
        path = os.path.join(folder, name)
        if kind in READ:
            if READ[kind](load(path)) != load(os.path.join(folder, stem.split(".")[0] + ".raw")):
                sys.exit(name + ": other bytes")
            read += 1
        elif kind == "raw":
            for codec, write in WRITE.items():
                for level in (0, 1, 6, 9):
                    with open(os.path.join(folder, f"{stem}.{level}.{codec}-py"), "wb") as file:
                        file.write(write(load(path), level))
                    wrote += 1
    print(f"read {read}, wrote {wrote}")


if __name__ == "__main__":
    main(sys.argv[1])
