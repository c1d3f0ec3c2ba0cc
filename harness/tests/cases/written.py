"""Opens with transformers what `harness prepare --as hugging-face` and `harness finetune --save` write, and compares logits with
those of the checkpoint that it was made of.

    python written.py HARNESS CASES
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
import transformers

# Each in what it differs from the others.
CASES = {
    "control-hf": [],
    "cfg-h4": [],
    "cfg-gelu": [],
    "cfg-relu": [],
    "cfg-ninner": [],
    "cfg-unscaled": [],
    "cfg-inverse-layer": [],
    "nano-bias-h4": [],
    "nano-nobias": [],
    "control-book": ["--size", "v61-c32-e64-l2-h1"],
    "book-fast": ["--size", "v61-c32-e64-l2-h4"],
}
FORMATS = ("safetensors", "pth", "sharded", "sharded-pth")
TOLERANCE = 1e-4


def checkpoint_in(folder: Path) -> Path:
    return next(file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".pt", ".pth", ".bin"))


def difference(folder: Path, truth: torch.Tensor) -> float:
    model, about = transformers.GPT2LMHeadModel.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    wrong = {what: names for what, names in about.items() if names}
    if wrong:
        raise SystemExit(f"{folder}: transformers says {wrong}")
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[1, 2, 3]])).logits
    return ((logits - truth).abs().max() / truth.abs().max()).item()


def main() -> int:
    harness, cases = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    failed = compared = 0
    with tempfile.TemporaryDirectory() as place:
        for name, options in CASES.items():
            checkpoint = checkpoint_in(cases / "in" / name)
            truth = safetensors.torch.load_file(cases / "truth" / name / "logits.safetensors")["logits"]
            command = [harness, "prepare", "--as", "hugging-face", "--from", checkpoint, *options]
            for format in FORMATS:
                command += ["--format", format]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            folders = [line for line in done.stdout.splitlines() if line.startswith("checkpoints")]
            if done.returncode != 0 or len(folders) != len(FORMATS):
                print(f"{name}: {done.stdout}{done.stderr}")
                failed += 1
                continue
            for folder in folders:
                off = difference(Path(place) / folder, truth)
                compared += 1
                if not off <= TOLERANCE:
                    print(f"{name}: {folder}: logits are off by {off:.1e}")
                    failed += 1
    print(f"{compared} folders opened by transformers, {failed} wrong")
    return 1 if failed or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
