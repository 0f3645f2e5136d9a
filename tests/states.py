"""The saved state of widgets in notebooks: what outputs show and no more, under names that stay the same.

jupyter saves every widget that a kernel ever made, with all that is unset and under random names. `states.py`
trims all notebooks of nbs/, or those that it is given, in place; what is trimmed already stays as it is."""
import json, re, sys
from pathlib import Path

import layout

VIEW = 'application/vnd.jupyter.widget-view+json'
STATE = 'application/vnd.jupyter.widget-state+json'
REFERENCE = r'"IPY_MODEL_([^"]+)"'  # of a model to another

def views(nb: dict) -> list[dict]:
    "The outputs that show a widget, in order: {'model_id': ...}."
    outputs = [o for c in nb['cells'] for o in c.get('outputs', [])]
    return [o['data'][VIEW] for o in outputs if VIEW in o.get('data', {})]

def reached(state: dict, names: list[str]) -> list[str]:
    "These models and all that they consist of, in order."
    found, left = {}, list(reversed(names))
    while left:
        name = left.pop()
        if name in found or name not in state: continue
        found[name] = None
        left += reversed(re.findall(REFERENCE, json.dumps(state[name], sort_keys=True)))
    return list(found)

def slim(model: dict) -> dict:
    "Without what is unset in a layout or style: that is its default."
    if not re.fullmatch(r'Layout.*|.*Style.*', model['model_name']): return model
    return model | dict(state={k: v for k, v in model['state'].items() if v is not None})

def trimmed(nb: dict) -> dict:
    "The notebook with the state that its outputs need."
    nb = json.loads(json.dumps(nb))
    state = nb['metadata'].pop('widgets', {}).get(STATE, {}).get('state', {})
    new = {old: f'widget-{i:04}' for i, old in enumerate(reached(state, [o['model_id'] for o in views(nb)]))}
    for o in views(nb): o['model_id'] = new.get(o['model_id'], o['model_id'])
    def name(m): return f'"IPY_MODEL_{new.get(m[1], m[1])}"'
    def renamed(model): return json.loads(re.sub(REFERENCE, name, json.dumps(slim(model))))
    models = {new[o]: renamed(state[o]) for o in new}
    if models: nb['metadata']['widgets'] = {STATE: dict(state=models, version_major=2, version_minor=0)}
    return nb

def main(paths):
    for path in paths:
        nb = json.loads(path.read_text(encoding='utf-8'))
        if (new := trimmed(nb)) == nb: continue
        text = json.dumps(new, sort_keys=True, indent=1, ensure_ascii=False)  # as nbdev_clean writes it
        path.write_text(text + '\n', encoding='utf-8')
        print(path.name)

if __name__ == '__main__': main([Path(o) for o in sys.argv[1:]] or layout.notebooks())
