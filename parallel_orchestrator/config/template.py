"""The scenario file that `init` writes."""

from __future__ import annotations

TEMPLATE = """\
# yaml-language-server: $schema=scenarios.schema.json
# Scenarios for parallel-orchestrator. This one replays a recording: it needs no key and costs nothing.
#
#     {program} run --config {file}            build it
#     {program} batch {file}                   build all scenarios of the file at once
#
# By scenarios.schema.json, which lies beside this file, an editor completes and checks it; `schema` prints it anew.

defaults:
  max_executors: 5 # the most agents that work at once; the plan may need fewer
  # planner: {{model: claude-opus-5-5, instructions: how-we-plan.txt}}
  # executor: {{model: claude-opus-5-5}}
  # limits:
  #   cost: 5      # USD for a whole run, which stops there and can be resumed
  #   turns: 40    # model answers per task
  #   minutes: 20  # of a task's own time
  # sandbox: required          # auto | required | off
  # api_key_env: MY_KEY        # the variable that holds the key; keys themselves are never written here
  # verify: ["python -m pytest -q"]   # your own proof of the whole; it decides the exit code

scenarios:
  - name: todo-list # names its folder
    requirements: Build a simple todo list application with add, delete, and mark complete features
    replay: medium # take this line and the next away to ask a model
    speed: 10 # ten times as fast as it was recorded
    output_dir: outputs/todo-list

  # - name: my-project
  #   requirements_file: what-i-want.txt   # or `requirements:` with a text
  #   max_executors: 8
"""
