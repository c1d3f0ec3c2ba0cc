//! The program `harness`: see the library of this name.

/// Counts every Rust allocation, in the worker as in the rest.
#[global_allocator]
static ALLOCATOR: meter::CountingAllocator = meter::CountingAllocator;

fn main() -> std::process::ExitCode {
    harness::run()
}
