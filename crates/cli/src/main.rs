//! The executable. All of it is in the library, so that the bench can run and ask nodes as the command does.

fn main() -> std::process::ExitCode {
    pando_cli::main()
}
