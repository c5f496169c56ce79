"""What is somebody doing? A program that says so, and learns with others to say it better.

`python activity.py` on a Raspberry Pi with a sensor; `python activity.py --data FOLDER --person 1` takes
recordings instead. Everything else, the broker for one, stands in device.toml.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import deque
from pathlib import Path

import recordings
import sensor
from window import ACTIVITIES

from laconic.edge_sdk import ExampleBuffer, NewModel, RoundDone, Skipped, device_from_file
from laconic.errors import LaconicError

BUNDLE = "activity.bundle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="device.toml", help="the device's configuration")
    parser.add_argument("--examples", default="examples", help="folder for labelled windows")
    parser.add_argument("--label", type=Path, default=Path("label"), help="file that says what is being done")
    parser.add_argument(
        "--data", default=os.environ.get("LACONIC_DATA"), help="recordings instead of a sensor"
    )
    parser.add_argument("--person", type=int, default=1, help="whose recordings")
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster than life they go by")
    options = parser.parse_args()
    # systemd's word for Ctrl-C: what is open is closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    if options.data:
        windows = recordings.windows(Path(options.data), options.person, options.speed)
    else:
        windows = sensor.windows(options.label)
    right: deque[bool | None] = deque(maxlen=50)
    # The days of a person are long stretches of the same: as many of each activity are kept, however rare.
    with (
        ExampleBuffer(options.examples, BUNDLE, keep="balanced", max_examples=1200) as examples,
        device_from_file(
            options.config, data=examples, on_model=new_model, on_round=round_done, on_skip=skipped
        ) as device,
    ):
        for number, (window, label) in enumerate(windows):
            guess = int(device.predict(window[None]).argmax())
            # First the guess, then the lesson: nothing is counted that was learnt from.
            right.append(None if label is None else guess == label)
            if label is not None:
                examples.add(window, label)
            if number % 25 == 0:
                told = [r for r in right if r is not None]
                share = f"{sum(told) / len(told):.0%} of the last {len(told)} right" if told else "no labels"
                say(f"version {device.version}: {ACTIVITIES[guess]}; {share}, {examples.samples} examples")


def new_model(news: NewModel) -> None:
    say(f"version {news.version} is here")


def round_done(news: RoundDone) -> None:
    fate = "is in" if news.committed else f"was not taken ({news.why})"
    say(f"round {news.round}: my update of {news.update_bytes} bytes {fate}")


def skipped(news: Skipped) -> None:
    say(f"round {news.round}: nothing sent ({news.why})")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
    except (LaconicError, OSError) as e:
        sys.exit(f"activity.py: {e}")
