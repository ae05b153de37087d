"""A Quorate with fresh data, on a port that the system chooses."""

import os
import shutil
import subprocess
import tempfile


class Server:
    def __init__(self, *flags):
        self.flags = flags
        self.dir = tempfile.mkdtemp(dir=os.environ["SCRATCH"])
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [os.environ["QUORATE"], "server", "--data-dir", self.dir + "/data", "--listen", self.address,
             *self.flags],
            stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            for word in line.split():
                if word.startswith("etcd="):
                    self.address = word[len("etcd="):]
                    return
        raise RuntimeError("the server ended before it was ready")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def restart(self):
        """Ends it without warning and starts it again with its data, at its address."""
        self.kill()
        self.start()

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir)

    @property
    def host(self):
        return self.address.rsplit(":", 1)[0]

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])
