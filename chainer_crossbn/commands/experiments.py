"""The command line of ``python -m chainer_crossbn experiments``."""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Optional

from chainer_crossbn.commands.command_line import (
    Parser,
    add,
    complain,
    conclude,
)
from chainer_crossbn.errors import UsageError
from chainer_crossbn.experiments import (
    costs,
    jobs,
    learning_rate_map,
    map_choice,
    records,
    report,
    runner,
    scaling_runs,
    search,
)
from chainer_crossbn.experiments.definitions import (
    GROUPS,
    SCALES,
    Scale,
    beyond,
    every,
    experiments,
    optional,
)
from chainer_crossbn.experiments.jobs import Job
from chainer_crossbn.experiments.results import NotRun
from chainer_crossbn.experiments.rules import rules_of
from chainer_crossbn.runs.values import number

_PROGRAM = "chainer_crossbn experiments"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Make the missing runs of the paper's evaluation, and write the report.

    Args:
        argv (list of str or None): Arguments; those of the process by default.

    Returns:
        int: Exit status: 0; 1 if a run has failed; 2 if the arguments can't be
        satisfied (standard error says why in one line); 130 or 143 after SIGINT or
        SIGTERM.
    """
    try:
        return conclude(_PROGRAM, lambda: _run(_parse(argv)))
    except runner.Stopped as stopped:
        complain(_PROGRAM, "stopped; run the same command again to continue")
        return 128 + stopped.signum
    except KeyboardInterrupt:  # while no run is active
        return 130


def _parser():
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Make the runs of the paper's figures and tables, except those "
        "that are finished.",
    )
    add(
        parser,
        "--scale",
        choices=sorted(SCALES),
        default="laptop",
        help="how large everything is",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="CIFAR-10, as for train_cifar.py"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="directory that contains the runs (default: result/paper-SCALE)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="only these experiments, as --list names them",
    )
    parser.add_argument(
        "--seeds",
        type=number(int, 1),
        metavar="N",
        help="seeds of the paper's figures (default: 3, at smoke scale 1)",
    )
    parser.add_argument(
        "--jobs",
        type=number(int, 1),
        metavar="N",
        help="number of runs at a time, each with one thread; timed runs run alone "
        "(default: one per core)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help=f"the report (default: {report.NAME} in --out)",
    )
    parser.add_argument(
        "--quick-check",
        metavar="DIR",
        help=f"runs at {report.QUICK_CHECK} scale; the report of a larger scale shows "
        "their verdicts beside its own, and takes from them what that scale lacks",
    )
    _add_modes(parser.add_mutually_exclusive_group())
    return parser


def _add_modes(modes):
    """Add the options that do something else than making runs."""
    modes.add_argument(
        "--list", action="store_true", help="list experiments and what is left of them"
    )
    modes.add_argument(
        "--dry-run", action="store_true", help="print the commands that are left"
    )
    modes.add_argument(
        "--print-jobs",
        choices=jobs.SCHEDULERS,
        help="print a job script for each run that is left",
    )
    modes.add_argument(
        "--report-only",
        action="store_true",
        help="write the report of the finished runs, and run nothing",
    )


def _parse(argv):
    args = _parser().parse_args(argv)
    scale = SCALES[args.scale]
    args.out = args.out or os.path.join("result", f"paper-{scale.name}")
    args.seeds = args.seeds or scale.seeds
    if args.data is not None and scale.dataset == "synthetic":
        raise UsageError(f"--scale {scale.name} makes its own images; leave out --data")
    if args.data is not None and not os.path.exists(args.data):
        raise UsageError(f"--data: no file or directory {args.data}")
    if os.path.lexists(args.out) and not os.path.isdir(args.out):
        raise UsageError(f"--out: {args.out} is no directory")
    _check_quick_check(args.quick_check, scale)
    return args


def _check_quick_check(directory, scale):
    if directory is None:
        return
    if scale.search:
        others = [s.name for s in SCALES.values() if not s.search]
        raise UsageError(f"--quick-check goes with --scale {' or '.join(others)}")
    if not os.path.isdir(directory):
        raise UsageError(f"--quick-check: no directory {directory}")


def _run(args: argparse.Namespace) -> int:
    scale = SCALES[args.scale]
    if args.list:
        _list(scale, args)
        return 0
    if args.report_only:
        _report(scale, args)
        return 0
    plan = _planned(scale, args)
    if args.dry_run or args.print_jobs:
        for job in plan:
            if records.state(job, args.out) == records.FINISHED:
                continue
            if args.dry_run:
                print(job.shell_command(args.out, args.data))
            else:
                print(job.script(args.out, args.data, args.print_jobs))
        return 0
    failed = runner.run(
        plan, args.out, data=args.data, at_once=_at_once(args), report=_print
    )
    of_map = args.only == [learning_rate_map.NAME]
    if failed:
        names = ", ".join(job.name for job in failed)
        _print(f"{len(failed)} of {len(plan)} runs failed: {names}")
        if not of_map:
            return 1
    if of_map:
        _choose_rules(scale, args.out)
    elif args.only == [search.NAME]:
        _print(f"chosen: {search.conclude(scale, args.out)}")
    else:
        _report(scale, args)
    return 1 if failed else 0


def _report(scale, args):
    path = report.write(scale, args.out, path=args.report, quick_check=args.quick_check)
    _print(f"wrote {path}")


def _choose_rules(scale, out):
    """Choose two rules by the map, and print them, or what is missing."""
    try:
        choice = map_choice.conclude(learning_rate_map.MapResults(scale, out))
    except NotRun as missing:
        _print(f"no rules chosen; not run: {missing}")
        return
    for line in map_choice.describe(choice):
        _print(line)


def _planned(scale: Scale, args: argparse.Namespace) -> list[Job]:
    """Return the runs that the user asks for."""
    names = [experiment.name for experiment in experiments(scale)]
    names += [scaling_runs.NAME] if scale.scaling else []
    if args.only is not None:
        names = [n for name in args.only for n in GROUPS.get(name, (name,))]
    _check_names(names, scale)
    if names == [learning_rate_map.NAME]:
        return learning_rate_map.planned(scale)
    if search.NAME in names:
        if names != [search.NAME]:
            raise UsageError(f"--only {search.NAME} goes alone, and first")
        return search.planned(scale)
    chosen = [e for e in every(scale) if e.name in names]
    plan = jobs.planned(chosen, scale, rules_of(scale, args.out).values(), args.seeds)
    if len({dict(job.flags)["dataset"] for job in plan}) > 1:
        raise UsageError("--only: large goes alone, as its --data is another")
    return plan + (scaling_runs.planned(scale) if scaling_runs.NAME in names else [])


def _names(scale):
    """Return all names that --only takes at a scale, except those of groups."""
    return [
        *(experiment.name for experiment in experiments(scale)),
        *([scaling_runs.NAME] if scale.scaling else []),
        *([learning_rate_map.NAME] if scale.map else []),
        *(experiment.name for experiment in optional(scale) + beyond(scale)),
        *([search.NAME] if scale.search else []),
    ]


def _check_names(names, scale):
    known, elsewhere = _names(scale), _names(SCALES[report.QUICK_CHECK])
    for name in names:
        if name in known:
            continue
        if name in elsewhere:
            raise UsageError(
                f"--only: the {scale.name} scale has no {name}; run it at "
                f"{report.QUICK_CHECK} scale"
            )
        groups = [g for g, members in GROUPS.items() if {*members} <= {*known}]
        choices = ", ".join([*known, *groups])
        raise UsageError(f"--only: no experiment {name!r}; there are {choices}")


def _list(scale: Scale, args: argparse.Namespace) -> None:
    rules = rules_of(scale, args.out)
    named = [f"{name} rule: {rule}" for name, rule in rules.items()]
    shown = named if len(rules) > 1 else map(str, rules.values())
    print(f"scale {scale.name}, {'; '.join(shown)}")
    for name, title, plan in _plans(scale, rules.values(), args.seeds):
        left = [j for j in plan if records.state(j, args.out) != records.FINISHED]
        runs = [(job, records.read(job, args.out)) for job in plan]
        measured = [(job, costs.START + run.total_time) for job, run in runs if run]
        seconds = costs.estimate_left(left, measured, _at_once(args))
        print(
            f"{name:16} {len(left):3} of {len(plan):3} runs left, "
            f"{costs.format_seconds(seconds):>12}  {title}"
        )


def _plans(scale, rules, seeds) -> Iterator[tuple[str, str, list[Job]]]:
    """Yield the name, the title and the runs of everything at a scale."""

    def planned(*chosen):
        return jobs.planned(chosen, scale, rules, seeds)

    if scale.search:
        yield search.NAME, search.TITLE, search.planned(scale)
    for experiment in experiments(scale):
        yield experiment.name, experiment.title, planned(experiment)
    timed = scaling_runs.planned(scale)
    if timed:
        yield scaling_runs.NAME, scaling_runs.TITLE, timed
    if scale.map:
        plan = learning_rate_map.planned(scale)
        yield learning_rate_map.NAME, learning_rate_map.TITLE, plan
    for kind, further in (("optional", optional), ("beyond the paper", beyond)):
        for experiment in further(scale):
            yield experiment.name, f"{experiment.title} ({kind})", planned(experiment)
    yield "(paper)", "What runs by default", planned(*experiments(scale)) + timed


def _at_once(args):
    return args.jobs or len(os.sched_getaffinity(0))


def _print(line):
    print(line, flush=True)
