"""What the fuzzers feed: real files, changed at random by a seeded generator."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tarfile
from pathlib import Path
from typing import Any

NASTY: list[Any] = [
    None, True, -1, 0, 1, 10**12, 1e308, -0.5, float("nan"), "", "a" * 100_000, "../../etc/passwd",
    "/etc/passwd", "x\x1b[2Jy", "a\nb", "\u202e", "=1+1", "<script>", [], {}, [[[[]]]], [1, "a"],
    {"a": {"b": 1}}, "(a+)+$", "(.*)*x", "\ud800",
]  # fmt: skip


def photo_seeds(folder: Path | None = None) -> list[bytes]:
    """Small files in many formats and modes; with `folder`, some real photos beside them."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    picture = coarse.resize((96, 72), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [picture.rotate(90 * i) for i in range(3)]
    deep = Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16))
    ways: list[tuple[Any, dict[str, Any]]] = [
        (picture, {"format": "JPEG"}),
        (picture, {"format": "JPEG", "progressive": True, "exif": exif}),
        (picture.convert("CMYK"), {"format": "JPEG"}),
        (picture.convert("L"), {"format": "JPEG"}),
        (picture, {"format": "PNG"}),
        (picture.convert("P"), {"format": "PNG"}),
        (picture.convert("RGBA"), {"format": "PNG"}),
        (deep, {"format": "PNG"}),
        (frames[0], {"format": "PNG", "save_all": True, "append_images": frames[1:]}),
        (picture, {"format": "WEBP"}),
        (picture, {"format": "WEBP", "lossless": True, "exif": exif}),
        (frames[0], {"format": "WEBP", "save_all": True, "append_images": frames[1:]}),
        (picture, {"format": "BMP"}),
    ]
    seeds = []
    for image, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, **options)
        seeds.append(buffer.getvalue())
    real = sorted(folder.rglob("*.jpg"))[:20] if folder else []
    return seeds + [path.read_bytes() for path in real]


def photo(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of `seeds` with a few bytes or stretches changed; sometimes two of them spliced."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        data = scrambled(rng, data)
    if rng.random() < 0.05:
        other = rng.choice(seeds)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]
    return bytes(data)


def scrambled(rng: random.Random, data: bytearray) -> bytearray:
    """`data` with one change, more often near its beginning, where the headers are."""
    if not data:
        return bytearray(rng.randbytes(4))
    at = int(len(data) * rng.random() ** 2)
    how = rng.randrange(7)
    if how == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif how == 2:
        return data[:at]
    elif how == 3:
        length = rng.randrange(1, 64)
        data[at:at] = data[at : at + length]
    elif how == 4:
        del data[at : at + rng.randrange(1, 64)]
    elif how == 5:
        data[at : at + 4] = struct.pack(
            rng.choice("<>") + "I", rng.choice([0, 2**16, 2**31, 2**32 - 1])
        )
    else:
        data[at : at + 8] = rng.randbytes(8)
    return data


def mangled(rng: random.Random, value: Any) -> Any:
    """`value`, of JSON's kinds, with one place in it replaced, doubled or taken away."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        how = rng.randrange(6)
        if how == 0:
            return {k: v for k, v in value.items() if k != key}
        if how == 1:
            return value | {str(rng.choice(NASTY))[:200]: rng.choice(NASTY)}
        return value | {key: mangled(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        how = rng.randrange(4)
        if how == 0:
            return value[:at] + value[at + 1 :]
        if how == 1:
            return [*value, value[at]]
        return [*value[:at], mangled(rng, value[at]), *value[at + 1 :]]
    return rng.choice(NASTY)


def checkpoint(rng: random.Random, folder: Path) -> None:
    """Change one or two files of a checkpoint folder."""
    names = [
        "adapter_config.json",
        "cliptune.json",
        "adapter_model.safetensors",
        "head.safetensors",
    ]
    for _ in range(rng.choice([1, 1, 2])):
        path = folder / rng.choice([*names, *names, "config.yaml", "SHA256SUMS"])
        if not path.is_file() or path.is_symlink():
            continue
        how = rng.randrange(8)
        if how < 3 and path.suffix == ".json":
            if (values := _parsed(path.read_bytes())) is not None:
                path.write_text(json.dumps(mangled(rng, values)), errors="replace")
        elif how < 3 and path.suffix == ".safetensors":
            path.write_bytes(_safetensors(rng, path.read_bytes()))
        elif how == 3:
            path.unlink()
            _put_something_else(rng, path)
        else:
            path.write_bytes(scrambled(rng, bytearray(path.read_bytes())))


def _parsed(text: bytes) -> Any:
    """What the JSON `text` says, or None where an earlier mutation broke it."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header was changed, its length set right again or not."""
    length = int.from_bytes(data[:8], "little")
    header = mangled(rng, _parsed(data[8 : 8 + length]))
    text = json.dumps(header).encode(errors="replace")
    stated = len(text) if rng.random() < 0.8 else rng.choice([0, 2**31, 2**63, len(text) - 1])
    return struct.pack("<Q", stated) + text + data[8 + length :]


class _Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/cliptune-fuzz-exploded",)


def _put_something_else(rng: random.Random, path: Path) -> None:
    how = rng.randrange(6)
    if how == 0:
        path.mkdir()
    elif how == 1:
        path.symlink_to("/etc/passwd")
    elif how == 2:
        path.symlink_to("/dev/zero")
    elif how == 3:
        os.mkfifo(path)
    elif how == 4:
        path.write_bytes(pickle.dumps(_Bomb()))


CONFIG = {
    "model": {"name": "m", "head": "text", "prompts": ["a photo of a {}."]},
    "lora": {"r": 8, "target_modules": ["q_proj"], "lora_dropout": 0.1},
    "data": {"data_dir": "d", "batch_size": 32, "augmentation": {"crop_scale": [0.6, 1.0]}},
    "training": {"learning_rate": 5e-4, "lr_scheduler": {"type": "cosine"}},
    "output": {"output_dir": "o", "trackers": ["tensorboard"]},
    "seed": 1,
}
YAML_TRICKS = [
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d]\nlora: {r: *e}\n",
    b"lora: !!python/object/apply:os.system ['true']\n", b"seed: 1\nseed: 2\n",
    b"lora: &x\n  r: *x\n", b"base: &b {r: 1}\nlora: {<<: *b}\n", b"\xef\xbb\xbfseed: 3\n",
    b"seed: \x00\n", b"\xff\xfes\x00e\x00", b"[" * 5000, b"{a: " * 3000, b"- 1\n- 2\n", b"", b"\t",
    b"seed: 2001-01-01\n", b"seed: 0x10\n", b"seed: 1e400\n", b"? [a]\n: b\n", b"lora: {1: 2}\n",
    b"%YAML 9.9\n---\nseed: 1\n", b"--- 1\n--- 2\n", b"seed: .nan\n", b"lora: {r: 9" + b"9" * 5000,
]  # fmt: skip


def config(rng: random.Random) -> bytes:
    """A settings file: mangled values, tricks of YAML, or scrambled bytes."""
    import yaml

    how = rng.randrange(4)
    if how == 0:
        return bytes(scrambled(rng, bytearray(rng.choice(YAML_TRICKS))))
    values = CONFIG
    for _ in range(rng.choice([1, 2, 3])):
        values = mangled(rng, values)
    text = yaml.safe_dump(values, allow_unicode=True).encode(errors="replace")
    return bytes(scrambled(rng, bytearray(text))) if how == 1 else text


ODD_NAMES = [
    "../out.jpg", "/tmp/out.jpg", "a/../../b/x.jpg", "dogs/\x1b[2J/x.jpg", "dogs/a\nb/x.jpg",
    "dogs/" + "n" * 300 + "/x.jpg", "C:\\x.jpg", "..\\x.jpg", "dogs/.hidden/x.jpg", "x.jpg", "",
    "dogs/" * 200 + "x.jpg", "dogs/b\udcff/x.jpg", "dogs/nul\u0000l/x.jpg", "dogs//x.jpg",
    "./x.jpg",
]  # fmt: skip


def archive(rng: random.Random) -> bytes:
    """A tar of photos with an odd member or two, or scrambled bytes."""
    buffer = io.BytesIO()
    kind = rng.choice(["", "", "gz", "xz", "bz2"])
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}", errors="surrogateescape") as tar:
        for name in ("pug", "collie"):
            for i in range(4):
                _add(tar, f"dogs/{name}/{i}.jpg", b"\xff\xd8" + rng.randbytes(20))
        for _ in range(rng.randrange(3)):
            _add_odd(rng, tar)
    data = buffer.getvalue()
    if rng.random() < 0.5:
        return data
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 3])):
        mutated = scrambled(rng, mutated)
    return bytes(mutated)


def _add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


def _add_odd(rng: random.Random, tar: tarfile.TarFile) -> None:
    how = rng.randrange(5)
    if how == 0:
        _add(tar, rng.choice(ODD_NAMES), b"\xff\xd8")
    elif how == 1:
        link = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE])
        _add(
            tar, "dogs/pug/link.jpg", b"", type=link, linkname=rng.choice(["/etc/passwd", "../.."])
        )
    elif how == 2:
        special = rng.choice([tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
        _add(tar, "dogs/pug/device.jpg", b"", type=special)
    elif how == 3:
        _add(tar, "dogs/pug/0.jpg", b"\xff\xd8twice")
    else:
        _add(tar, "dogs/pug/zeros.jpg", bytes(rng.choice([10**5, 10**7])))
