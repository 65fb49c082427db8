"""The rest of PID 1: mounts the share (clients), then runs every command put into /mnt/lab/ctl/<name>/."""

import os
import subprocess
import threading
import time

env = os.environ
name, n, role = env["LAB_NAME"], env["LAB_N"], env["LAB_ROLE"]
ctl = f"/mnt/lab/ctl/{name}"


def put(path, text):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


ok = True
if role == "client":
    export = "/" if "vers=4" in env["LAB_OPTS"] else "/mnt/srv/export"
    cmd = ["mount", "-t", "nfs", "-o", env["LAB_OPTS"].replace(";", ","), f"10.77.0.1:{export}", "/mnt/shared"]
    for i in range(40):
        p = subprocess.run(cmd, capture_output=True, text=True)
        if p.returncode == 0:
            break
        time.sleep(0.25)
    else:
        ok = False
        put(f"{ctl}/failed", p.stderr + p.stdout)
if ok:
    put(f"{ctl}/ready", open("/proc/mounts").read() if role == "client" else "server\n")


def run(job):
    base = f"{ctl}/{job}"
    cmd = open(base + ".cmd").read()
    e = {k: v for k, v in env.items() if k != "TERM"}
    e.update(LAB_CLIENT=n, PYTHONDONTWRITEBYTECODE="1", PATH=os.path.dirname(env["LAB_PYTHON"]) + ":" + env["PATH"])
    with open(base + ".out", "wb", buffering=0) as out:
        p = subprocess.Popen(
            ["sh", "-c", cmd],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=e,
            cwd="/mnt",
            start_new_session=True,
        )
        rc = p.wait()
    put(base + ".rc", f"{rc}\n")


seen = set()
while True:
    for f in os.listdir(ctl):
        if f == "poweroff":
            if role == "client":
                subprocess.run(["umount", "-l", "/mnt/shared"])
            else:
                subprocess.run(["rpc.nfsd", "0"])
                subprocess.run(["umount", "/mnt/srv"])
            with open("/proc/sysrq-trigger", "w") as t:
                t.write("o")
            time.sleep(5)
        if f.endswith(".cmd") and f not in seen:
            seen.add(f)
            threading.Thread(target=run, args=(f[:-4],), daemon=True).start()
    try:  # reap orphans as PID 1 (never a child a thread waits for: those are in sessions)
        pass
    finally:
        time.sleep(0.02)
