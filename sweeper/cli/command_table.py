"""The commands with one line of help each, and the text of `sweeper --help`. Imports nothing, so help is instant."""

from __future__ import annotations

COMPLETION_VARIABLE = "_SWEEPER_COMPLETE"  # set by the script of `sweeper completion`; the name is click's

# name -> (module of sweeper.cli.commands that holds its click command as `command`, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run a sweep: submit the trials not done yet, save every picture, write results.csv."),
    "open": ("open", "Build an experiment on a page in the browser, and run it."),
    "plan": ("plan", "Show what a run would do: axes, trials, order, new and done. Submits nothing."),
    "search": ("search", "Let an optimiser choose the trials: `search:` of an experiment."),
    "validate": ("validate", "Check experiments and templates; report every mistake in every file."),
    "results": ("results", "Show the table of a run."),
    "runs": ("runs", "List the runs of a results folder."),
    "costs": ("costs", "Show what all runs cost: by target, day, node class and axis value."),
    "effects": ("effects", "Show what each axis changes in a metric, by how much, and how sure that is."),
    "export": ("export", "Write the table as csv, tsv, jsonl, parquet or markdown, or as a dataset with pictures."),
    "report": ("report", "Make a page of pictures that opens from disk, or contact sheets."),
    "view": ("view", "Show that page in a browser while the run continues."),
    "vote": ("vote", "Ask which of two pictures is better, blind, on a page in a browser."),
    "votes": ("votes", "Show the ranking that votes give, and merge votes of several people."),
    "accept": ("accept", "Accept the pictures of a run as the baseline; shows the changes first."),
    "check": ("check", "Run an experiment again and compare every picture with the accepted one."),
    "bisect": ("bisect", "Find the commit of ComfyUI that changed a picture."),
    "lock": ("lock", "Write the models, node packs and versions that an experiment needs, or compare a server."),
    "calibrate": ("calibrate", "Measure how much pictures vary between runs, and propose checks."),
    "compare": ("compare", "Compare the pictures of two runs: new, gone, same or changed."),
    "template": ("template", "List what can be swept in a workflow, and make a template from it."),
    "init": ("init", "Make a folder with a template and an experiment to edit."),
    "comfyui-extension": ("comfyui_extension", "Add Sweep... to the menus of a ComfyUI on this machine, or remove it."),
    "trust": ("trust", "Trust a folder's experiments with keys, own code and files elsewhere."),
    "serve": ("serve", "Serve the API of Comfy Cloud, ComfyUI or API v2 on this machine, without a GPU."),
    "mcp": ("mcp", "Let an assistant build and run sweeps, in one folder and within a budget."),
    "completion": ("completion", "Print the script by which a shell completes commands and options."),
    "schema": ("schema", "Print the path of the JSON Schema with which editors check experiments."),
    "doctor": ("doctor", "Check this installation and the targets."),
}

_HELP = """\
Usage: sweeper COMMAND [OPTIONS]

  Sweep any ComfyUI or Comfy Cloud workflow over prompts, seeds and settings; keep every picture, and know when one
  changes.

Commands:
{commands}

Options:
  --version   Show the version.
  -h, --help  Show this text. `sweeper COMMAND --help` shows a command's options and an example.

Start with:
  sweeper init my-sweep
  sweeper run my-sweep/experiment.yaml

Exit codes: 0 success; 1 a trial failed or a case changed; 2 a mistake in the command line, an experiment or a
template; 3 a target is unreachable or refuses access; 130 interrupted.
"""


def render_help() -> str:
    width = max(map(len, COMMANDS))
    return _HELP.format(commands="\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()))
