"""Runs the checks of the dissector, or those that are named; `.ci/wireshark` calls it."""

import sys
import tempfile

import check_calls
import check_frames
import check_hostile
import shark


def main():
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        shark.write.folder = folder
        for check in check_frames.TESTS + check_calls.TESTS + check_hostile.TESTS:
            if not chosen or check.__name__ in chosen:
                print(f"{check.__name__.replace('_', ' ')}: {check()}", flush=True)


if __name__ == "__main__":
    main()
