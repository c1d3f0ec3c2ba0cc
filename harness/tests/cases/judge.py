"""Loads every checkpoint that the make scripts wrote, and compares with what PyTorch computes from it.

    python judge.py HARNESS CASES [CASE ...]

A case is right where a run's logits are PyTorch's and the eight tokens behind the prompt are, too; or refused where expected.toml
says so, in a message with these words. Anything else is an error: exit code 1.
"""

import csv
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
MANIFEST = """[matrix]
experiments = ["parallel-read"]
devices = ["flex"]
repeats = 1
checkpoint = %s
"""
# A message that is a crash is none.
CRASHES = ("panicked", "RUST_BACKTRACE")
TIME_OUT_SECONDS = 10
NAMES = ("*.index.json", "*.safetensors", "*.bin", "*.pth", "*.pt", "*.pkl")


def checkpoint_in(folder: Path) -> Path:
    """The folder, where its files are several; else its one file."""
    found = [file for name in NAMES for file in sorted(folder.glob(name))]
    return found[0] if len(found) == 1 else folder


class Judge:
    def __init__(self, harness: Path, place: Path):
        self.harness, self.place = harness, place

    def run(self, *args) -> tuple[int, str, str]:
        command = [self.harness, *map(str, args)]
        try:
            done = subprocess.run(
                command, cwd=self.place, capture_output=True, text=True, timeout=TIME_OUT_SECONDS, errors="replace"
            )
        except subprocess.TimeoutExpired:
            return -1, "", f"hangs: no end after {TIME_OUT_SECONDS} s"
        return done.returncode, done.stdout, done.stderr

    def load(self, checkpoint: Path, truth: Path, options: list[str]) -> str | None:
        """What is wrong; nothing, where the model is PyTorch's."""
        out = tempfile.mkdtemp(dir=self.place)
        (self.place / "one.toml").write_text(MANIFEST % json.dumps(str(checkpoint)))
        code, _, said = self.run("run", "one.toml", "--reference", truth / "logits.safetensors", "--out", out, *options)
        if any(crash in said for crash in CRASHES):
            return f"crashes: {said}"
        rows = Path(out) / "runs.csv"
        if code != 0 or not rows.exists():
            return said.strip() or f"exit code {code}"
        with rows.open() as file:
            row = next(csv.DictReader(file))
        if row["status"] != "ok" or row["verified"] != "true":
            return f"{row['status']}: {row['reason']}"
        about = json.loads((truth / "truth.json").read_text())
        options = ["--checkpoint", checkpoint, "--tokens", "1,2,3", "--count", "8", *options]
        code, told, said = self.run("generate", *options)
        if code != 0:
            return f"is loaded, but generate says: {said.strip()}"
        tokens = [int(token) for token in told.strip().split(",")]
        if "greedy" in about and row["dtype"] == "f32" and tokens != about["greedy"]:
            return f"SILENTLY WRONG: goes on with {tokens}, and PyTorch with {about['greedy']}"
        return None


def judge(judge: Judge, cases: Path, name: str, expected: dict) -> str | None:
    """Why the case is not as expected; nothing, where it is."""
    folder = cases / "in" / name
    checkpoint = (folder / expected["file"] if "file" in expected else checkpoint_in(folder)).resolve()
    truth = (cases / "truth" / expected.get("truth", name)).resolve()
    words = expected.get("refused")

    def load(options):
        wrong = judge.load(checkpoint, truth, options)
        if wrong is None or "how many heads" not in wrong or "how many heads" in (words or []):
            return wrong
        # Nothing tells them: what is offered is taken by a person who knows.
        size = wrong.split("--size ")[1].split()[0].rstrip(";")
        return judge.load(checkpoint, truth, [*options, "--size", size])

    wrong = load(expected.get("options", []))
    if words is None:
        return wrong
    if wrong is None:
        return "is loaded, and should be refused"
    missing = [word for word in words if word not in wrong]
    if missing or "SILENTLY" in wrong or "crashes" in wrong or "hangs" in wrong:
        return f"is refused, and should say {missing}: {wrong}"
    if "then" in expected:
        return load(expected["then"])
    return None


def main() -> int:
    harness, cases = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    expected = tomllib.loads((HERE / "expected.toml").read_text())
    names = sys.argv[3:] or sorted(folder.name for folder in (cases / "in").iterdir())
    without = [name for name in expected if name not in names and not sys.argv[3:]]
    failed = [f"{name}: is expected, and was not made" for name in without]
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            wrong = judge(Judge(harness, Path(place)), cases, name, expected.get(name, {}))
            if wrong is not None:
                failed.append(f"{name}: {wrong}")
                print(failed[-1], flush=True)
    print(f"{len(names)} checkpoints, {len(failed)} not as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
