"Records of sequences that nobody ran."
import json

from sae_ft.plumbing.files import write_json
from sae_ft.tasks_run import Sequenced

def answers(v):
    each = {'val': v - .1, 'line': v, 'emoji': v/2}
    return dict(row=[v, v/2], seen=each, all=each)

def made_up(folder, v, **more):
    "A record of two tasks with accuracies about v."
    folder.mkdir(parents=True)
    def line(t, v):
        drift = dict(cka=1 - t/10, fvu=.2, preserved=.5)
        error = dict(stale=.2, moved=.1) if t else {}
        return dict(event='task', task=t, classes=[t], seen=t, transfer=dict(food=.4), drift=drift,
                    answers={k: answers(v - i/100) for i, k in enumerate(('head', 'stale', 'moved'))},
                    means=dict(error=error), features={}, bytes_a_class=9)
    lines = [line(0, v/2), line(1, v), line(2, v + .1)]
    lines += [dict(event='sequence_end', groups=[[0], [1]], seconds=1)]
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))
    kinds = dict(line='id', emoji='far', food='transfer')
    write_json(folder/'sequence.json', dict(settings=more, classnames=['a', 'b'], kinds=kinds))
    return Sequenced(folder)
