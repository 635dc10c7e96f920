"""The course's commands: `python -m utils --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m utils", description="The commands of Probe to Steer.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="one line per requirement: [ok], or [fix] and what to do")
    commands.add_parser("fetch", help="fetch and prepare the default model, if it is not there yet")
    commands.add_parser("learn", help="open JupyterLab on the first chapter; fetches the model first; options are passed on to jupyter lab", add_help=False)
    build = commands.add_parser("build", help="write the student notebooks from their sources")
    build.add_argument("chapters", nargs="*", help="such as 11_linear_probes; all of them if none is named")
    run = commands.add_parser("run", help="execute the solved notebooks top to bottom")
    run.add_argument("chapters", nargs="*", help="such as 11_linear_probes; all of them if none is named")
    run.add_argument("--no-figures", action="store_true", help="needs no Chromium: draw no static images, store nothing")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                     help="replace a value of the settings cell, such as SEED=1 or MODEL='\"gpt2\"'; nothing is stored then")
    run.add_argument("--second", action="store_true", help="run at SEED=1, and store its claims beside those of the usual run")
    grade = commands.add_parser("grade", help="grade learners' notebooks")
    grade.add_argument("notebooks", nargs="+", type=Path, help="files, or folders of them")
    grade.add_argument("--json", type=Path, metavar="FILE", help="every result; a run that was stopped goes on from it")
    grade.add_argument("--csv", type=Path, metavar="FILE", help="a line a notebook, for the grade book")
    grade.add_argument("--html", type=Path, metavar="FILE", help="a page: the class, its mistakes by exercise, what was hardest, what is alike")
    grade.add_argument("--anonymous", action="store_true", help="numbers in place of names in the page and the CSV; the JSON keeps them")
    export = commands.add_parser("export", help="a chapter's exercises as an assignment of nbgrader or otter-grader")
    export.add_argument("tool", choices=["nbgrader", "otter"])
    export.add_argument("chapter", help="such as 11_linear_probes")
    export.add_argument("folder", type=Path, help="where to; it is made if it is not there")
    audit = commands.add_parser("audit", help="prove that every check rejects, names and accepts what it should")
    audit.add_argument("--json", type=Path, metavar="FILE")
    probe = commands.add_parser("probe", help="a linear probe of your own texts: a CSV file with the columns text,label[,group]")
    probe.add_argument("table", type=Path)
    probe.add_argument("--model", help="a name or a folder, as load_model takes it; the default model if none is named")
    for name, words in (("rivals", "a probe of your own texts beside its rivals: text,label[,group]"),
                        ("numbers", "numbers read from your own texts, at random and by group: text,value[,group]"),
                        ("monitor", "a monitor of your own texts at 1%% of false alarms on unrelated chat: text,label[,group]")):
        own = commands.add_parser(name, help=words)
        own.add_argument("table", type=Path)
        own.add_argument("--model", help="a name or a folder, as load_model takes it; the default model if none is named")
    dictionaries = commands.add_parser("dictionaries", help="latents of a trained SAE beside a dense probe and frozen SAEs, on your own texts: text,label[,group]")
    dictionaries.add_argument("table", type=Path)
    dictionaries.add_argument("--k", type=int, default=16, help="how many features each may look at")
    train = commands.add_parser("train-sae", help="a small sparse autoencoder of your own texts: a folder of .txt or .md files")
    train.add_argument("folder", type=Path)
    train.add_argument("--model", help="a name or a folder, as load_model takes it; the default model if none is named")
    train.add_argument("--steps", type=int, default=300, help="of training, 1,024 tokens each")
    train.add_argument("--d-sae", type=int, default=1024, help="how many latents")
    train.add_argument("--k", type=int, default=32, help="how many of them may fire on a token")
    steer = commands.add_parser("steer", help="a steering vector from your own texts, dose by dose: a CSV file with the columns text,label[,group]")
    steer.add_argument("table", type=Path)
    steer.add_argument("--model", help="a name or a folder, as load_model takes it; the default model if none is named")
    steer.add_argument("--figure", type=Path, metavar="FILE", help="write the figure as HTML")
    pipe = commands.add_parser("pipeline", help="text to labelled, verified latents, in stages that can be stopped and resumed: docs/pipeline.yaml is an example")
    actions = pipe.add_subparsers(dest="action", required=True)
    begin = actions.add_parser("run", help="run what is not done yet")
    begin.add_argument("place", type=Path, metavar="CONFIG", help="a YAML file; its keys are documented in utils/pipeline/config.py")
    begin.add_argument("--stage", help="this one alone: sentences, capture, shuffle, train, features, labels, verify or card")
    begin.add_argument("--dry-run", action="store_true", help="print tokens, bytes and minutes from a short probe, and do nothing")
    for name, words in (("resume", "go on with a run that was stopped"), ("status", "a line a stage: what is done, and how far the others are")):
        actions.add_parser(name, help=words).add_argument("place", type=Path, metavar="FOLDER", help="the run's folder, or its YAML file")
    label = commands.add_parser("label", help="rules for all latents of the course SAE, with their scores; or, with a word, the latents whose label says it")
    label.add_argument("query", nargs="?", help="such as year; none makes the labels anew")
    new = commands.add_parser("new", help="start a chapter or an exercise from a template")
    new.add_argument("kind", choices=["chapter", "exercise"])
    new.add_argument("chapter", help="the chapter's stem, such as 12_when_a_probe_lies")
    new.add_argument("name", nargs="?", help="the exercise's function name")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 when nothing is wrong."""
    parser = _parser()
    arguments, others = parser.parse_known_args(argv)
    if others and arguments.command != "learn":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    # Imported here, since the doctor has to work where nothing is installed yet.
    if arguments.command == "doctor":
        from utils.course.doctor import doctor

        return int(doctor() > 0)
    if arguments.command == "fetch":
        from utils.default_model import default_problem
        from utils.models import load_model

        if default_problem() is not None:
            load_model()
        return 0
    if arguments.command == "learn":
        from utils.course.learn import learn

        return learn(others)
    if arguments.command == "grade":
        from utils.course.grading_class import grade_all

        return int(grade_all(arguments.notebooks, json_path=arguments.json, html_path=arguments.html, csv_path=arguments.csv, anonymous=arguments.anonymous) > 0)
    if arguments.command == "export":
        from utils.course.exporting import export_chapter

        return export_chapter(arguments.tool, arguments.chapter, arguments.folder)
    if arguments.command == "audit":
        from utils.course.audit import audit

        return int(audit(arguments.json) > 0)
    if arguments.command == "probe":
        from utils.yours.probe import probe_file

        return probe_file(arguments.table, arguments.model)
    if arguments.command == "rivals":
        from utils.yours.rivals import rival_file

        return rival_file(arguments.table, arguments.model)
    if arguments.command == "dictionaries":
        from utils.yours.dictionaries import dictionary_file

        return dictionary_file(arguments.table, arguments.k)
    if arguments.command == "numbers":
        from utils.yours.numbers import number_file

        return number_file(arguments.table, arguments.model)
    if arguments.command == "monitor":
        from utils.yours.monitors import monitor_file

        return monitor_file(arguments.table, arguments.model)
    if arguments.command == "train-sae":
        from utils.yours.train_sae import train_folder

        return train_folder(arguments.folder, arguments.model, steps=arguments.steps, d_sae=arguments.d_sae, k=arguments.k)
    if arguments.command == "steer":
        from utils.yours.steering import steer_file

        return steer_file(arguments.table, arguments.model, arguments.figure)
    if arguments.command == "pipeline":
        from utils.pipeline.command import pipeline

        return pipeline(arguments.action, arguments.place, stage=getattr(arguments, "stage", None), dry_run=getattr(arguments, "dry_run", False))
    if arguments.command == "label":
        from utils.reading.labels.shipped import label_command

        return label_command(arguments.query)
    if arguments.command == "new":
        from utils.course.new import new

        return new(arguments.kind, arguments.chapter, arguments.name)
    from utils.course.building import build
    from utils.course.chapters import stems
    from utils.course.solved import run_all

    unknown = set(arguments.chapters) - set(stems())
    if unknown:
        print(f"No chapter is called {', '.join(sorted(unknown))}. There are: {', '.join(stems())}.", file=sys.stderr)
        return 2
    chosen = arguments.chapters or stems()
    if arguments.command == "run":
        settings = dict(setting.split("=", 1) for setting in arguments.settings) | ({"SEED": "1"} if arguments.second else {})
        failed = run_all(chosen, static=not (arguments.no_figures or settings), settings=settings, second=arguments.second)
        if failed or settings or arguments.no_figures:
            return int(failed > 0)
    build(chosen)  # a run changes the figures and the numbers that the student notebooks show
    return 0


if __name__ == "__main__":
    sys.exit(main())
