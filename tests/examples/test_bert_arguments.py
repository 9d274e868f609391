from __future__ import annotations

from pathlib import Path

import pytest

from examples.bert.arguments import Options, parse


def test_without_arguments_everything_is_as_documented():
    options = parse([])
    assert options == Options()
    assert options.phases == ("pretrain", "finetune", "evaluate", "infer")
    assert (options.size, options.pretrain_epochs, options.epochs, options.synthetic) == ("tiny", 3, 12, True)


def test_phases_run_in_their_own_order_whatever_the_order_on_the_command_line():
    assert parse(["--phase", "infer", "finetune", "infer"]).phases == ("finetune", "infer")
    assert parse(["--phase", "infer", "all"]).phases == Options().phases


def test_every_argument_arrives():
    line = "--model there --data a.tsv b.tsv --epochs 2 --pretrain-epochs 1 --batch-size 8 --max-length 64"
    options = parse(f"{line} --learning-rate 1e-5 --limit 9 --seed 3 --save here".split())
    assert options.model == "there"
    assert options.data == (Path("a.tsv"), Path("b.tsv"))
    assert not options.synthetic
    assert (options.epochs, options.pretrain_epochs, options.batch_size, options.max_length) == (2, 1, 8, 64)
    assert (options.learning_rate, options.limit, options.seed, options.save) == (1e-5, 9, 3, Path("here"))


@pytest.mark.parametrize(
    "argv",
    [
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--batch-size", "-1"],
        ["--max-length", "3"],
        ["--learning-rate", "nan"],
        ["--learning-rate", "2"],
        ["--seed", "-1"],
        ["--size", "huge"],
        ["--phase", "train"],
        ["--model", ""],
        ["--data", " "],
        ["--save", ""],
        ["--model", "there", "--size", "mini"],
    ],
)
def test_a_wrong_argument_ends_the_program_with_status_2_and_names_it(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert f"argument {argv[0] if len(argv) == 2 else '--size'}" in capsys.readouterr().err
