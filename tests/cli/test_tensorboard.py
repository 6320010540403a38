"""Figures for TensorBoard: its own reader finds them, each step once, however often a run is killed."""

import struct
from pathlib import Path

import pytest

from cli.faults import call, fault
from cli.test_pretrain import SMALL
from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.cli.progress import StepProgress
from maskplay.cli.tensorboard import NAME, EventFile
from maskplay.errors import UserError
from maskplay.protobuf import read_message

Figures = list[tuple[int, dict[str, float]]]


def figures(path: Path) -> Figures:
    """What a file says, by the format's description: sizes, checksums, messages."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size, check = struct.unpack_from("<QI", content, at)
        event = content[at + 12 : at + 12 + size]
        assert check == masked_crc32c(content[at : at + 8])
        assert struct.unpack_from("<I", content, at + 12 + size)[0] == masked_crc32c(event)
        fields = {field.number: field.value for field in read_message(event)}
        assert (3 in fields) == (at == 0) and struct.unpack("<d", fields[1])[0] > 1.7e9
        values = {}
        for summary in read_message(fields.get(5, b"")):
            tag, value = (field.value for field in read_message(summary.value))
            values[tag.decode()] = struct.unpack("<f", value)[0]
        found.append((fields[2], values))
        at += 16 + size
    assert found[0] == (0, {})
    return found[1:]


def theirs(path: Path) -> Figures:
    """The same by TensorFlow's reader."""
    tensorflow = pytest.importorskip("tensorflow")
    read = tensorflow.compat.v1.train.summary_iterator(str(path))
    return [(event.step, {v.tag: v.simple_value for v in event.summary.value}) for event in read][1:]


def written(folder: Path) -> Path:
    events = EventFile(folder, more=False)
    events.write(10, {"loss": 2.5, "val_loss": 2.75, "rate": 0.5})
    events.write(300, {"loss": 1.5, "val_loss": 1.25, "rate": 0.25})
    return events.path


EXPECTED = [
    (10, {"loss/train": 2.5, "loss/held_out": 2.75, "rate": 0.5}),
    (300, {"loss/train": 1.5, "loss/held_out": 1.25, "rate": 0.25}),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "folder")
    assert figures(path) == EXPECTED and "tfevents" in path.name


def test_tensorflow_reads_it(tmp_path: Path) -> None:
    assert theirs(written(tmp_path)) == EXPECTED


def test_a_record_that_was_broken_off_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    header = 16 + struct.unpack_from("<Q", whole)[0]
    first = 16 + struct.unpack_from("<Q", whole, header)[0]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        events = EventFile(tmp_path, more=True)
        assert events.path == path and events.step == (10 if size >= header + first else 0)
        for step in (10, 300):
            events.write(step, {"loss": 3.0})
        kept = EXPECTED[0] if size >= header + first else (10, {"loss": 3.0})
        assert figures(path) == [kept, (300, {"loss": 3.0})]


def test_nothing_is_written_twice_and_another_run_has_a_file_of_its_own(tmp_path: Path, monkeypatch) -> None:
    path = written(tmp_path)
    again = EventFile(tmp_path, more=True)
    again.write(300, {"loss": 9.0})
    again.write(299, {"loss": 9.0})
    assert figures(path) == EXPECTED
    monkeypatch.setattr("maskplay.cli.tensorboard.time.time", lambda: 9e9)
    other = EventFile(tmp_path, more=False)
    assert other.step == 0 and not other.path.exists()  # nothing is there before there are figures
    other.write(1, {"loss": 1.0})
    assert figures(path) == EXPECTED and figures(other.path) == [(1, {"loss": 1.0})]
    assert EventFile(tmp_path, more=True).path == other.path


def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken: no event file can be written there"):
        EventFile(tmp_path / "taken", more=False)
    monkeypatch.setattr("maskplay.cli.tensorboard.time.time", lambda: 9e9)
    (tmp_path / NAME.format(9_000_000_000)).mkdir()  # a folder is there, a file cannot be
    with pytest.raises(UserError, match="no event file can be written there"):
        EventFile(tmp_path, more=False)


def test_a_run_that_is_killed_shows_each_step_once(capfd, tmp_path: Path, monkeypatch) -> None:
    text, folder = tmp_path / "text.txt", tmp_path / "board"
    text.write_text("天地玄黄宇宙洪荒。\n" * 80, encoding="utf-8")
    command = ["pretrain", text, "--out", tmp_path / "out", "--steps", 8, "--report-every", 2, *SMALL]
    shown = StepProgress.on_epoch_end

    def killed(self, epoch: int, logs=None) -> None:
        if epoch == 2:  # the third report is neither shown nor saved
            raise KeyboardInterrupt
        shown(self, epoch, logs)

    with monkeypatch.context() as patched:
        patched.setattr(StepProgress, "on_epoch_end", killed)
        assert call(*command, "--tensorboard", folder) == 130
    (path,) = folder.iterdir()
    assert [step for step, _ in figures(path)] == [2, 4]
    assert call(*command, "--tensorboard", folder) == 0
    found = figures(path)
    assert [step for step, _ in found] == [2, 4, 6, 8] and [*folder.iterdir()] == [path]
    rows = (tmp_path / "out" / "history.csv").read_text("utf-8").splitlines()[1:]
    for (step, values), row in zip(found, rows):
        names = ("accuracy/train", "loss/train", "accuracy/held_out", "loss/held_out")
        names = (*names, "learning_rate", "tokens_per_second")
        assert [float(cell) for cell in row.split(",")] == pytest.approx([step, *map(values.get, names)], rel=1e-6)
        assert values["tokens_per_second"] > 0 and 0 <= values["learning_rate"] <= 1e-3
    assert found[0][1]["learning_rate"] > found[-1][1]["learning_rate"]
    capfd.readouterr()
    err = fault(capfd, *command, "--restart", "--tensorboard", text)
    assert "text.txt: no event file can be written there" in err
