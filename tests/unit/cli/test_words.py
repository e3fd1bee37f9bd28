"""What people read of the commands: help with words, an order, names of blocks, what can be compared."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from rich.console import Console

from common.cli import bench_amplify, bench_link, reproduce, soak
from common.cli.benchmark import Row
from common.cli.keys import certificate
from common.cli.main import ORDER, cli
from common.units import block_name, block_number


def commands(group: click.Group, context: click.Context, name: str) -> Iterator[tuple[str, click.Command]]:
    for one in group.list_commands(context):
        command = group.get_command(context, one)
        assert command is not None
        yield f"{name} {one}", command
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=context, info_name=one), f"{name} {one}")


def test_every_option_is_explained_in_four_words_at_least() -> None:
    stubs = [
        (name, option.opts[0], option.help)
        for name, command in commands(cli, click.Context(cli), "qkd")
        for option in command.params
        if isinstance(option, click.Option) and len((option.help or "").split()) < 4
    ]
    assert stubs == []


def test_what_is_needed_first_stands_first() -> None:
    listed = cli.list_commands(click.Context(cli))
    assert listed[:3] == ["demo", "doctor", "plan"]
    assert listed.index("init") < listed.index("amplify")
    known = [name for name in ORDER if name in listed]
    assert listed[: len(known)] == known


def test_blocks_have_names_that_can_be_given_back() -> None:
    assert block_name(4294967297) == "1.1"
    for number in (1 << 32 | 1, 7 << 32 | 123, 5):
        assert block_number(block_name(number)) == block_number(str(number)) == number
    result = CliRunner().invoke(certificate, ["one", "--config", "x"])
    assert "session.block" in result.output


@pytest.mark.parametrize("comparable", [True, False])
def test_small_blocks_are_not_compared_with_the_paper(comparable: bool) -> None:
    size = reproduce.BLOCK_SIZE if comparable else reproduce.QUICK_BLOCK_SIZE
    row: dict[str, Any] = {
        "preset": "lab-0.17dB", "protocol": "three-state", "block_size": size, "seed": None, "bits_per_pulse": 3.3e-2,
        "paper_bits_per_pulse": 6e-2, "qber": 0.02, "f_ec": 1.1, "real_time_factor": 1.0, "keys_equal": True,
        "seconds_after_last_detection": 1.0, "memory_peak_bytes": 1e8,
    }  # fmt: skip
    text = io.StringIO()
    reproduce.report([row], Console(file=text, width=100))
    assert ("0.55" in text.getvalue()) is comparable
    assert ("not comparable" in text.getvalue()) is not comparable


# -- plots ------------------------------------------------------------------------------------------------------------


def test_no_panel_is_empty_and_no_legend_lies_over_the_data() -> None:
    at = {"preset": "x", "detections_per_s": 1e6}
    stage = Row("sift", {"kind": "stage", **at}, [1.0], "Mbit/s", extra={"core_share": 0.1})
    link = Row("link", {"kind": "link", **at}, [1.0], "x")
    for rows, panels in (([stage], 1), ([stage, link], 2)):
        figure = Figure()
        bench_link.draw(figure, rows)
        assert len(figure.axes) == panels
        assert all(axes.lines for axes in figure.axes)
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert legend.get_bbox_to_anchor().y0 >= figure.axes[0].bbox.y1 - 1e-6


def test_curves_of_a_plot_look_different() -> None:
    def looks(figure: Figure) -> list[tuple[Any, ...]]:
        return [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines]

    figure = Figure()
    rows = [
        Row("amplify", {"family": f"f{i}", "path": "p", "threads": 1, "n": 10}, [1.0], bench_amplify.UNIT)
        for i in range(15)
    ]
    bench_amplify._draw(figure, rows)
    assert len(set(looks(figure))) == 15
    sample = {"hours": 1.0, "memory_bytes": 1, "loop_lag_ms": 1, "secret_key_rate_bps": 1, "jobs_waiting": 1}
    figure = Figure()
    soak.draw(figure, {"samples": [sample | {"role": role} for role in ("alice", "bob")]})
    assert len({style for _, style in looks(figure)}) == 2
