"""The part of a benchmark's process that all peers share: its cores, its input, and the lines it answers.

A peer is one process in one environment. It builds a case once and is then asked to run it again and again, in turn
with the others. Every line on stdin and stdout is one JSON object; whatever the libraries print goes to stderr.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

IGNORE = -100
PREDICTED = 19  # of 128 tokens, the 15 % that BERT is trained on
DROPOUT = 0.1  # hidden states and attention probabilities, in every peer

Step = Callable[[], Any]


def pin() -> None:
    """Stay on the cores that the benchmark chose; call before the libraries count them."""
    if cores := os.environ.get("PEER_CORES"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])


def batch(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same input for all: the last text is a little shorter, so that padding must be masked.

    Returns: "tokens", "segments", "valid" `(batch, length)`; "labels" likewise, `IGNORE` where nothing is predicted;
        "at" `(batch, predicted)` the places that are, and "answers" the tokens that stand there.
    """
    random, (size, length) = np.random.default_rng(0), (case["batch"], case["length"])
    tokens = random.integers(1, case["model"]["vocab_size"], (size, length)).astype("int32")
    tokens[-1, -(length // 16) :] = 0
    count = max(1, length * PREDICTED // 128)
    at = np.stack([np.sort(random.permutation(length * 7 // 8)[:count]) for _ in range(size)]).astype("int32")
    labels, answers = np.full_like(tokens, IGNORE), np.take_along_axis(tokens, at, 1)
    np.put_along_axis(labels, at, answers, 1)
    shape = {"tokens": tokens, "segments": np.zeros_like(tokens), "valid": (tokens != 0).astype("int32")}
    return {**shape, "labels": labels, "at": at, "answers": answers}


def serve(versions: dict[str, str], prepare: Callable[[dict[str, Any]], tuple[Step, dict[str, Any]] | None]) -> None:
    """Answer "prepare" and "run" until stdin ends.

    Args:
        versions: what this peer is made of.
        prepare: builds a case: the function to time, which returns when its work is done, and facts about the model;
            None if the peer does not offer the case. A step of training returns its loss, any other its result.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    replies.write(json.dumps({"versions": {"python": sys.version.split()[0], **versions}}) + "\n")
    step: Step | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "prepare":
            step = None
            gc.collect()
            found = prepare(order["case"])
            reply: dict[str, Any] = {"offered": found is not None}
            if found is not None:
                step, facts = found
                start = time.process_time()
                first = step()
                reply |= {**facts, "first": time.process_time() - start}
                if order["case"]["task"] == "train":
                    reply["loss"] = float(first)
                else:
                    reply["shape"] = list(first.shape)
                step()
        else:
            assert step is not None
            calls, cpu, wall = 0, time.process_time(), time.perf_counter()
            while not calls or time.perf_counter() - wall < order["seconds"]:
                step()
                calls += 1
            reply = {"cpu": (time.process_time() - cpu) / calls, "wall": (time.perf_counter() - wall) / calls}
        replies.write(json.dumps(reply) + "\n")
