"""JupyterLab as a user meets it: a server on a copy of the notebooks, and chromium to look at it.

`browser.py install` gets chromium."""
import contextlib, json, os, re, shutil, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path

from current import ROOT

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
ARTEFACTS = Path(os.environ.get('SAE_FT_ARTEFACTS') or ROOT/'.artefacts')
FLAGS = ('--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--no-first-run')

SETTINGS = {  # cells out of view stay in the page; nothing is asked of the network
    'notebook-extension/tracker.jupyterlab-settings': dict(windowingMode='none'),
    'apputils-extension/notification.jupyterlab-settings': dict(fetchNews='false', checkForUpdates=False)}

def find() -> str | None:
    "Path of a chromium, Debian's or playwright's own."
    if path := next(filter(None, map(shutil.which, NAMES)), None): return path
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p: path = p.chromium.executable_path
    return path if Path(path).is_file() else None

def install():
    "Get chromium if there is none: from Debian, or from playwright."
    if find(): return
    sudo = [] if os.geteuid() == 0 else ['sudo', '-n']
    commands = [[sys.executable, '-m', 'playwright', 'install', 'chromium']]
    if shutil.which('apt-get'):
        apt = [*sudo, 'apt-get', '-qq']
        packages = ['-y', '--no-install-recommends', 'chromium', 'fonts-dejavu-core']
        commands = [[*apt, 'update'], [*apt, 'install', *packages], *commands]
    env = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in commands:
        print(*command, flush=True)
        with contextlib.suppress(OSError): subprocess.run(command, env=env, stdout=subprocess.DEVNULL)
        if find(): return
    sys.exit('there is no chromium, and it could not be installed: '
             'install it (Debian: apt-get install chromium) and try again.')

@contextlib.contextmanager
def lab(folder: Path, **env):
    "JupyterLab on a folder, with settings of its own; yields its address, and ends with all kernels."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    home = folder.parent/'home'
    for path, setting in SETTINGS.items():
        (place := home/'lab'/'@jupyterlab'/path).parent.mkdir(parents=True)
        place.write_text(json.dumps(setting))
    places = dict(
        JUPYTERLAB_SETTINGS_DIR='lab', JUPYTERLAB_WORKSPACES_DIR='workspaces',
        JUPYTER_CONFIG_DIR='config', JUPYTER_RUNTIME_DIR='runtime', IPYTHONDIR='ipython')
    own = dict(PYTHONPATH=str(ROOT), HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', IN_TEST='1')
    env = {**os.environ, **own, **{k: str(home/v) for k, v in places.items()}, **env}
    for o in ('JPY_SESSION_NAME', 'MPLBACKEND'): env.pop(o, None)
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--expose-app-in-browser',
               f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=known',
               f'--ServerApp.root_dir={folder}']
    home.mkdir(exist_ok=True)
    with open(home/'log', 'w') as log:
        streams = dict(stdout=log, stderr=subprocess.STDOUT)
        server = subprocess.Popen(command, env=env, start_new_session=True, **streams)
    address = f'http://127.0.0.1:{port}'
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise RuntimeError(f"JupyterLab ended: {(home/'log').read_text()[-2000:]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f'{address}/api', timeout=2)
                break
            time.sleep(.5)
        else: raise RuntimeError('JupyterLab did not answer for two minutes.')
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try: server.wait(20)
        except subprocess.TimeoutExpired: os.killpg(server.pid, signal.SIGKILL)

CELLS = "n => document.querySelectorAll('.jp-Notebook .jp-Cell').length == n"
IDLE = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
CLOSE = """async () => {
    for (const o of [...window.jupyterapp.shell.widgets('main')]) o.dispose();
    await window.jupyterapp.serviceManager.sessions.shutdownAll();
}"""
OPEN = "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)"

class Notebook:
    "A notebook, open in JupyterLab; `name` is its path without its ending."
    def __init__(self, page, address: str, folder: Path, name: str, reload: bool = True):
        self.page, self.name, self.path = page, name, folder/f'{name}.ipynb'
        self.cells = len(json.loads(self.path.read_text(encoding='utf-8'))['cells'])
        if reload: page.goto(f'{address}/lab/tree/{name}.ipynb?reset&token=known', timeout=120_000)
        else:  # JupyterLab is there: as a click on the file does, after all other notebooks were closed
            page.evaluate(CLOSE)
            page.evaluate(OPEN, f'{name}.ipynb')
        page.wait_for_function(CELLS, arg=self.cells, timeout=120_000)
        page.wait_for_selector(IDLE, timeout=120_000)  # its kernel has started

    def dialogs(self) -> int: return self.page.locator('.jp-Dialog').count()

    def saved(self) -> dict:
        "Save, and read the file."
        before = self.path.stat().st_mtime_ns
        self.page.keyboard.press('Escape')
        self.page.keyboard.press('Control+s')
        for _ in range(100):
            if self.path.stat().st_mtime_ns != before: break
            time.sleep(.1)
        time.sleep(.5)
        return json.loads(self.path.read_text(encoding='utf-8'))

    def begun(self) -> bool:
        return bool(self.page.locator('.jp-InputPrompt').get_by_text(re.compile(r'\[[*\d]')).count())

    def run(self, seconds: int = 300) -> list[str]:
        "Run all cells to the end; returns the errors. Raises TimeoutError."
        end = time.time() + seconds
        while time.time() < end and not self.begun():  # right after it opened, JupyterLab may not listen yet
            self.page.get_by_role('menuitem', name='Run', exact=True).click()
            self.page.get_by_text('Run All Cells', exact=True).click()
            time.sleep(3)
        while time.time() < end:
            time.sleep(2)
            if not self.page.locator(IDLE).count(): continue
            if self.page.locator('.jp-InputPrompt', has_text='[*]').count(): continue
            cells = [c for c in self.saved()['cells'] if c['cell_type'] == 'code']
            outputs = [o for c in cells for o in c['outputs']]
            errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o['output_type'] == 'error']
            done = all(c['execution_count'] for c in cells if ''.join(c['source']).strip())
            if errors or done: return errors
        raise TimeoutError(f'{self.name} was not done after {seconds} seconds.')

    def solve(self, call: str, code: str, seconds: int = 60) -> str:
        """Type code over the cell that ends with a call, and run it, as a learner does; what is shown below.

        Raises TimeoutError of playwright if nothing new is."""
        cell = self.page.locator('.jp-CodeCell', has_text=call)
        shown = cell.locator('.jp-OutputArea-output').last
        before = shown.inner_text()
        cell.locator('.cm-content').click()
        self.page.keyboard.press('Control+a')
        self.page.keyboard.insert_text(f'{code}\n{call}')
        self.page.keyboard.press('Control+Enter')
        cell.locator('.jp-OutputArea-output').filter(has_not_text=before).last.wait_for(timeout=1000*seconds)
        return shown.inner_text()

    def shot(self, name: str):
        "Keep a picture of the window."
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS/f'{name}.png')

@contextlib.contextmanager
def browser():
    "Chromium, or a sentence."
    from playwright.sync_api import sync_playwright
    path = find()
    assert path, 'there is no chromium: run `make browser`'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=list(FLAGS))
        try: yield b
        finally: b.close()

if __name__ == '__main__':
    if sys.argv[1:] != ['install']: sys.exit('usage: python tests/browser.py install')
    install()
