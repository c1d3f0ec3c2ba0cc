"""Loads GPT-2 in PyTorch, as the study does it, and as safetensors offers it.

Speaks with the harness over standard input and output: see harness/src/external/mod.rs.

    python peer.py TECHNIQUE
"""

import json
import sys

import torch
from model import Gpt2, per_tensor_files
from safetensors import safe_open
from safetensors.torch import load_file

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def build(spec, device):
    """The whole model, with random weights, on a device."""
    with torch.device(device):
        return Gpt2(**spec["model"])


def naive(spec, device):
    model = build(spec, device)
    state_dict = torch.load(spec["checkpoint"], map_location=device, weights_only=True)
    model.load_state_dict(state_dict)
    return model


def host_then_device(spec, device):
    model = build(spec, "cpu")
    model.load_state_dict(torch.load(spec["checkpoint"], map_location="cpu", weights_only=True))
    return model.to(device)


def sequential(spec, device):
    model = build(spec, device)
    state_dict = torch.load(spec["checkpoint"], map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state_dict[name].to(device))
    return model


def meta_device(spec, device):
    model = build(spec, "meta").to_empty(device=device)
    state_dict = torch.load(spec["checkpoint"], map_location=device, weights_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state_dict[name])
    return model


def mmap_assign(spec, device):
    model = build(spec, "meta")
    state_dict = torch.load(spec["checkpoint"], map_location="cpu", mmap=True, weights_only=True)
    model.load_state_dict(state_dict, assign=True)
    return model.to(device)


def per_tensor(spec, device):
    model = build(spec, "meta").to_empty(device=device)
    files = per_tensor_files(spec["checkpoint"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(load_file(files[name])[name])
    return model


def safetensors_load_file(spec, device):
    """`load_file` maps the file; its tensors are views until something copies them."""
    model = build(spec, "meta")
    model.load_state_dict(load_file(spec["checkpoint"], device=device), assign=True)
    return model


def safetensors_load_file_copy(spec, device):
    """The same into a model that has its memory already: it ends with a private copy."""
    model = build(spec, "meta").to_empty(device=device)
    model.load_state_dict(load_file(spec["checkpoint"]))
    return model


def safetensors_safe_open(spec, device):
    model = build(spec, "meta")
    state_dict = {}
    with safe_open(spec["checkpoint"], framework="pt", device=device) as file:
        for name in file.keys():
            state_dict[name] = file.get_tensor(name)
    model.load_state_dict(state_dict, assign=True)
    return model


def safetensors_safe_open_copy(spec, device):
    model = build(spec, "meta").to_empty(device=device)
    with safe_open(spec["checkpoint"], framework="pt") as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(name))
    return model


TECHNIQUES = {
    name.replace("_", "-"): function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", None) == __name__ and name != "build"
}


def say(**message):
    print(json.dumps(message), flush=True)


def hear():
    """A line of the harness's; when it is gone, so is this."""
    return sys.stdin.readline() or sys.exit("the harness is gone")


def device_of(spec):
    kind, _, index = spec["device"].partition(":")
    return f"cuda:{index or 0}" if kind == "cuda" else "cpu"


def reset_peak(device):
    """What the device holds before the load; its peak starts over."""
    if device == "cpu":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_above(before, device):
    """Waits for the device. The most that its live tensors held, as the study measures it."""
    if device == "cpu":
        return {}
    torch.cuda.synchronize(device)
    return {"device_in_use_peak_bytes": torch.cuda.max_memory_allocated(device) - before}


def main():
    technique = TECHNIQUES[sys.argv[1]]
    spec = json.loads(hear())
    variant = spec["model"].pop("variant", "")
    if variant:
        raise ValueError(f"computes the book's GPT-2 alone, and this model differs in {variant.lstrip('-')}")
    torch.set_num_threads(spec["threads"])
    torch.set_default_dtype(DTYPES[spec["dtype"]])
    device = device_of(spec)
    # The first allocation and kernel, and what PyTorch imports with the first model on "meta": setting up is no part
    # of a load.
    (torch.ones(64, device=device) @ torch.ones(64, device=device)).item()
    with torch.device("meta"):
        Gpt2(vocabulary=8, context=8, embedding=8, layers=1, heads=1, qkv_bias=True)
    say(event="ready", framework=f"pytorch {torch.__version__.split('+')[0]}")
    before = reset_peak(device)
    hear()
    model = technique(spec, device)
    say(event="loaded", **peak_above(before, device))
    hear()
    with torch.no_grad():
        logits = model(torch.tensor([spec["tokens"]], device=device))[0].float().cpu()
    logits.contiguous().numpy().tofile(spec["logits"])
    say(event="done")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TECHNIQUES:
        sys.exit(f"usage: peer.py TECHNIQUE, one of {', '.join(TECHNIQUES)}")
    try:
        main()
    except Exception as error:
        say(event="failed", reason=f"{type(error).__name__}: {error}")
        raise
