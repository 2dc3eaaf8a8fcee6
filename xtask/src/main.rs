mod ebpf;
fn main() -> anyhow::Result<()> {
    ebpf::run(std::env::args().any(|a| a == "--check"))
}
