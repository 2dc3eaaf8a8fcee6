#!/usr/bin/env python3
"""Holds the body scanner, one-sided, against Python's own readers.

Where the scanner takes a body with model M, json.loads (for forms email and, where Python still has it, cgi) must
refuse the body or read M; where it finds no model, they must find none. Bodies are made from a seed, hostile on
purpose. Exits with 1 and the bodies at any difference.

    cargo build --example scan && tests/oracle/scan_vs_python.py target/debug/examples/scan [--bodies N] [--seed N]
"""

import argparse
import collections
import email.parser
import email.policy
import io
import json
import random
import struct
import subprocess
import sys
import warnings

KEYS = ['"model"', '"mod\\u0065l"', '"\\u006dodel"', '"\\u006Dodel"', '"Model"', '"MODE\\u004c"', '"models"', '"mode"', '"stream"',
        '"messages"', '"a\\\\"', '"\\""', '""', '"\\ud83d\\ude00"', '"\\ud800"', '"model\\u0000"', '"é"', '"moſel"', 'model', "'model'"]
NAMES = ["qwen", "deepseek-r1", "Qwen/Qwen3-8B", "é", "😀", "a b", "a\\\\b", "\\u0071wen", "\\ud83d\\ude00", 'a\\"b', "q\\/w"]
UGLY_NAMES = ["", " qwen", "qwen ", "a\\nb", "\\ud800", "\\u0000", "\\q", "x" * 256, "x" * 257, "é" * 129, "a\x01b", "a\tb", "\\u12"]
SPACES = ["", "", "", "", " ", "\n", "\t", "\r\n", "  "]
UGLY_SPACES = ["\x00", "\x0b", "\xa0", "\ufeff", "/**/", "//\n", "#\n"]
SCALARS = ["null", "true", "false", "0", "-0", "17", "1.5", "-1e9", "1E+2", '"x"', '""', '"}"', '"{\\"model\\":\\"x\\"}"', "[]", "{}"]
UGLY_SCALARS = ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "tru", "nul", "'x'", '"\\q"', '"\\ud800"', '"\x01"', '"\x00"', "0x1"]
NOISE = [bytes([b]) for b in b'"\\{}[]:,0eE-+.tfn \x00\x1f\x7f\xc3\xa9\xff\xe2\xed\n/\'m'] + [b"\\u", b'\\"', b'"model":"x",']


def pick(rng, good, ugly, odds=0.04):
    return rng.choice(ugly if rng.random() < odds else good)


def space(rng):
    return pick(rng, SPACES, UGLY_SPACES, 0.005)


def value(rng, depth=0):
    roll = rng.random()
    if depth > 4 or roll < 0.5:
        return pick(rng, SCALARS, UGLY_SCALARS)
    if roll < 0.6:
        return '"' + "\\" * (2 * rng.randrange(40) + (rng.random() < 0.03)) + '"'
    if roll < 0.65:
        return '"' + rng.choice(["x", "é", "\\n", '\\"']) * rng.randrange(300) + '"'
    if roll < 0.66:
        levels = rng.choice([5, 200, 998, 999, 1000])
        return "[" * levels + "]" * levels
    inside = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if roll < 0.8:
        return "[" + ",".join(inside) + "]"
    return "{" + ",".join(rng.choice(KEYS[:10]) + ":" + v for v in inside) + "}"


def member(rng, model_odds):
    if rng.random() < model_odds:
        key, said = rng.choice(KEYS[:3]), '"' + pick(rng, NAMES, UGLY_NAMES) + '"'
        if rng.random() < 0.03:
            said = rng.choice(SCALARS)
    else:
        key, said = rng.choice(KEYS[6:] if rng.random() < 0.9 else KEYS), value(rng)
    return space(rng) + key + space(rng) + ":" + space(rng) + said + space(rng)


def json_body(rng):
    members = [member(rng, 0.4) for _ in range(rng.randrange(5))]
    text = space(rng) + "{" + ",".join(members) + "}" + space(rng)
    if rng.random() < 0.01:
        return text.encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"]), "surrogatepass")
    return mutate(rng, text.encode("utf-8", "surrogatepass"), NOISE)


def mutate(rng, body, noise):
    while rng.random() < 0.25:
        at = rng.randrange(len(body) + 1)
        cut = rng.choice([0, 0, 1, 1, 2, 5])
        body = body[:at] + (rng.choice(noise) if rng.random() < 0.7 else b"") + body[at + cut:]
    return body


def read_json(body):
    """What json.loads reads at the top level; None: it refuses the body."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return {"model": None, "variants": 0}
    return {"model": tree.get("model"), "variants": sum(key.casefold() == "model" and key != "model" for key in tree)}


HEADS = ['Content-Disposition: form-data; name="model"', "Content-Disposition: form-data; name=model",
         'content-disposition: form-data; name="x"', 'Content-Disposition: form-data; name="f"; filename="a;b.wav"',
         'Content-Disposition: form-data; name="f"; filename="a.wav"\r\nContent-Type: audio/wav']
UGLY_HEADS = ['Content-Disposition: form-data; name="Model"', "Content-Disposition: form-data; name*=utf-8''model",
              "Content-Disposition: form-data; name*0=mo; name*1=del", 'Content-Disposition: form-data;\r\n name="model"',
              'Content-Disposition: form-data; filename="a\\"; name=\\"model"', "Content-Disposition: form-data; name=<model>",
              'Content-Disposition: form-data; name="model"; name="x"', 'Content-Disposition: form-data; name="x"; NAME="model"',
              'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64',
              'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; charset=utf-16',
              'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"', "X: y", ""]
CONTENTS = ["qwen", "whisper-1", "é", "", "RIFF\r\n-\r\n--\r\n", "a\nb", " q", "--", "\r\n", "x" * 256]
UGLY_CONTENTS = ["--BB", "\n--BB\r\n", "\r\n--BB ", "x" * 257, "\r--BB--", "\r\n--BBB", "cXdlbg=="]
FORM_NOISE = [b"\r", b"\n", b"\r\n", b"-", b"--BB", b"\r\n--BB\r\n", b"\r\n--BB--", b" ", b";", b'"', b"\x00", b"\xff", b"=", b":"]


def form_body(rng):
    parts = ["--BB\r\n" + pick(rng, HEADS, UGLY_HEADS, 0.1) + "\r\n\r\n" + pick(rng, CONTENTS, UGLY_CONTENTS, 0.1) + "\r\n"
             for _ in range(rng.randrange(4))]
    text = "".join(parts) + pick(rng, ["--BB--\r\n", "--BB--"], ["--BB", "--BB--\r", "--BB--\r\nx", "--BB-- \r\n", ""])
    return mutate(rng, text.encode(), FORM_NOISE)


def models_by_email(body):
    """The contents of all parts that the email package takes for `model`."""
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/form-data; boundary=BB\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(head + body)
    if not message.is_multipart():
        return []
    parts = [part for part in message.get_payload()
             if (part.get_param("name", header="content-disposition") or "") == "model"]
    return [part.get_payload(decode=True) for part in parts]


def models_by_cgi(body):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cgi
    except ImportError:
        return None
    environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "multipart/form-data; boundary=BB", "CONTENT_LENGTH": str(len(body))}
    try:
        form = cgi.FieldStorage(fp=io.BytesIO(body), environ=environ, keep_blank_values=True)
    except (ValueError, LookupError):
        return None
    read = [field.value for field in form.list or [] if field.name == "model"]
    return [said.encode("utf-8", "replace") if isinstance(said, str) else said for said in read]


def differs_json(answer, body):
    read = read_json(body)
    if read is None:
        return None
    if answer["model"] != read["model"] or read["variants"]:
        return f"json.loads reads {read}"
    return None


def differs_form(answer, body):
    wanted = [] if answer["model"] is None else [answer["model"].encode()]
    for reader in (models_by_email, models_by_cgi):
        read = reader(body)
        if read is not None and read != wanted:
            return f"{reader.__name__} reads {read}"
    return None


def scan(command, bodies):
    frames = b"".join(struct.pack("<I", len(body)) + body for body in bodies)
    output = subprocess.run(command, input=frames, stdout=subprocess.PIPE, check=True).stdout
    answers = [json.loads(line) for line in output.splitlines()]
    if len(answers) != len(bodies):
        sys.exit(f"{len(bodies)} bodies in, {len(answers)} answers out")
    return answers


def hold(title, command, make, differs, rng, count):
    counts, differences = collections.Counter(), []
    while sum(counts.values()) < count:
        bodies = [make(rng) for _ in range(min(5000, count - sum(counts.values())))]
        for body, answer in zip(bodies, scan(command, bodies)):
            if not answer["ok"]:
                counts[answer["kind"]] += 1
                continue
            counts["(ok, no model)" if answer["model"] is None else "(ok, a model)"] += 1
            difference = differs(answer, body)
            if difference:
                differences.append(f"{body!r}: scanner {answer}, {difference}")
    print(f"{title}: {count} bodies, {len(differences)} differences")
    for kind, number in counts.most_common():
        print(f"  {number:8} {kind}")
    print("\n".join(differences[:20]), end="\n" if differences else "")
    return not differences


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("scan", help="the built example gateway/examples/scan.rs")
    arguments.add_argument("--bodies", type=int, default=20000, help="JSON bodies; a quarter as many forms")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    rng = random.Random(given.seed)
    well = hold("JSON", [given.scan], json_body, differs_json, rng, given.bodies)
    well &= hold("forms", [given.scan, "--form", "BB"], form_body, differs_form, rng, given.bodies // 4)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
