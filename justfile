# `just --list` tells the recipes; several in one go: `just setup reproduce`.

harness := "target/release/harness"

[private]
default:
    @just --list

# Bring what is missing on a new Debian or Ubuntu machine, and say what it does
setup:
    scripts/setup

# See every technique on a small model within minutes; needs nothing but Rust and a C linker, and builds for the CPU alone
demo:
    cargo build --release --package harness --no-default-features
    rm -rf target/demo
    {{harness}} run demo --out target/demo
    @echo "look at:" target/demo/plots/peaks-*.svg

# Build the harness in release
build:
    cargo build --release --workspace --exclude simulated-cuda

# Run a manifest of harness/manifests (or a file) and show the results: just reproduce quick --device flex
reproduce manifest="reproduce" *args: build
    {{harness}} run {{manifest}} {{args}}

# Bring what compiles CUDA's kernels (libnvrtc and headers, from PyPI) into target/cuda, for a machine that has a driver alone
cuda:
    scripts/cuda-toolkit

# Measure everything on this machine's NVIDIA GPU: just gpu, or just gpu --quick
gpu *args:
    scripts/gpu {{args}}

# Tell experiments, sizes and devices
list: build
    {{harness}} list

# Tell versions, devices, memory and disk
doctor: build
    {{harness}} doctor

# Search for the smallest host memory that each technique survives in: just minmem --only mmap-assign --size small
minmem *args: build
    {{harness}} minmem {{args}}

# Write summary, claims, report and charts of a folder of results again
plot results *args: build
    {{harness}} plot {{results}} {{args}}

# Say which technique fits and is fastest: just advise --host 512MiB --device-free 8GiB --size xl
advise *args: build
    {{harness}} advise {{args}}

# Say in words what a technique held at its peak: just explain naive --device vulkan
explain experiment *args: build
    {{harness}} explain {{experiment}} {{args}}

# Hold two folders of results side by side; fails where memory grew
compare old new *args: build
    {{harness}} compare {{old}} {{new}} {{args}}

# Measure what measuring costs
overhead *args: build
    {{harness}} overhead {{args}}

# Make an experiment crate from the template and register it
new name:
    scripts/new-experiment {{name}}

# Fuzz every parser of checkpoints for so many seconds each (needs cargo-fuzz): just fuzz 600
fuzz seconds="60":
    scripts/fuzz {{seconds}}

# Run the tests of the crates with unsafe code under AddressSanitizer
sanitize *args:
    scripts/sanitize {{args}}

# Take a folder of results among the committed ones: just publish runs/<machine>/<manifest>
publish results *args: build
    {{harness}} publish {{results}} {{args}}

# Write again what is made of the committed rows: summaries, reports, charts, and parts of README.md; --check names what is stale
regenerate *args: build
    {{harness}} regenerate {{args}}

# Load some 210 small checkpoints as people have them, and compare with PyTorch (which is installed for it, where it can be)
cases *names: build
    scripts/cases {{names}}

# Run the programs in examples/ on small checkpoints that PyTorch makes, and compare their outputs with PyTorch's
examples: build
    scripts/examples

# Licences, sources and doubled versions of what is depended on: deny.toml
deny *checks:
    scripts/deny {{checks}}

# Format, clippy and documentation, with warnings denied
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --release --workspace --no-deps --document-private-items

# Everything that must pass: lint, dependencies, tests, committed results up to date, checkpoints and examples beside PyTorch, and the quick reproduction
test: lint deny
    -scripts/cuda-toolkit
    cargo test --release --workspace
    just regenerate --check
    just cases
    just examples
    just reproduce quick --out target/quick --check
