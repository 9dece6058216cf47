"""The `reslab doctor` command."""

from reslab.cli.options import DataDir, Json, Threads, use_threads


def doctor(data_dir: DataDir = None, threads: Threads = None, json: Json = False) -> None:
    """Print what limits the speed on this machine, and what to change. Downloads nothing."""
    use_threads(threads)
    from reslab.cli.show import echo_sentences, print_json
    from reslab.doctor import examine

    findings = examine(data_dir)
    if json:
        print_json([finding._asdict() for finding in findings])
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        echo_sentences(f"{finding.name:<{width}}  {finding.value}", indent=width + 2)
        if finding.advice is not None:
            echo_sentences(f"{'':<{width}}  -> {finding.advice}", indent=width + 5)
