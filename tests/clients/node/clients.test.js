// etcd3 against a Quorate with fresh data: each test has a server of its own.
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { test } = require('node:test');

const { Etcd3, EtcdLockFailedError, STMConflictError } = require('etcd3');

const PATIENCE_MS = 20_000;

class Server {
  constructor() {
    this.dir = fs.mkdtempSync(path.join(process.env.SCRATCH, 'node-'));
    this.address = '127.0.0.1:0';
  }

  async start() {
    this.process = spawn(
      process.env.QUORATE,
      ['server', '--data-dir', path.join(this.dir, 'data'), '--listen', this.address],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    for await (const line of readline.createInterface(this.process.stdout)) {
      const word = line.split(' ').find((one) => one.startsWith('etcd='));
      if (word) {
        this.address = word.slice('etcd='.length);
        return;
      }
    }
    throw new Error('the server ended before it was ready');
  }

  async kill() {
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }
}

function etcd(name, body) {
  test(name, { timeout: 3 * PATIENCE_MS }, async (t) => {
    const server = new Server();
    await server.start();
    const clients = [];
    const connect = () => {
      const client = new Etcd3({ hosts: `http://${server.address}` });
      clients.push(client);
      return client;
    };
    t.after(async () => {
      for (const client of clients) client.close();
      await server.kill();
      fs.rmSync(server.dir, { recursive: true });
    });
    await body(connect(), { server, connect });
  });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await pause(20);
  }
}

etcd('keys', async (client) => {
  await client.put('key').value('one');
  const previous = await client.put('key').value('two').getPrevious();
  assert.equal(previous.value.toString(), 'one');
  assert.equal(await client.get('key').string(), 'two');
  assert.equal(await client.get('key').revision(2).string(), 'one');
  assert.equal(await client.get('missing').string(), null);
  assert.equal(await client.get('key').exists(), true);
  await client.put('bytes').value(Buffer.from([0, 255, 1]));
  assert.deepEqual(await client.get('bytes').buffer(), Buffer.from([0, 255, 1]));
  for (let index = 0; index < 5; index++) await client.put(`range/${index}`).value(9 - index);
  assert.equal(await client.getAll().prefix('range/').count(), 5);
  assert.deepEqual(await client.getAll().prefix('range/').sort('Value', 'Ascend').limit(2).numbers(), {
    'range/4': 5,
    'range/3': 6,
  });
  assert.deepEqual(await client.getAll().inRange({ start: 'range/1', end: 'range/3' }).keys(), ['range/1', 'range/2']);
  assert.equal((await client.delete().prefix('range/').getPrevious()).length, 5);
  assert.equal((await client.delete().all()).deleted, '2');
  await assert.rejects(client.get('key').revision(99).exec(), /required revision is a future revision/);
});

etcd('namespaces', async (client) => {
  const space = client.namespace('space/');
  await space.put('key').value('value');
  assert.equal(await client.get('space/key').string(), 'value');
  assert.deepEqual(await space.getAll().strings(), { key: 'value' });
  await client.put('outside').value('x');
  await space.delete().all();
  assert.deepEqual(await client.getAll().keys(), ['outside']);
});

etcd('transactions', async (client) => {
  await client.put('key').value('one');
  const done = await client
    .if('key', 'Value', '==', 'one')
    .and('none', 'Version', '==', 0)
    .and('key', 'Mod', '>', 0)
    .then(client.put('new').value('x'), client.get('new'))
    .else(client.put('never').value('x'))
    .commit();
  assert.equal(done.succeeded, true);
  assert.equal(done.responses[1].response_range.kvs[0].value.toString(), 'x');
  const refused = await client.if('key', 'Create', '==', 0).then().else(client.get('key')).commit();
  assert.equal(refused.succeeded, false);
  assert.equal(refused.responses[0].response_range.kvs[0].value.toString(), 'one');
});

etcd('software transactions', async (client, { connect }) => {
  await client.put('counter').value(0);
  const add = (one) =>
    one.stm({ retries: 1000 }).transact(async (tx) => {
      const value = await tx.get('counter').number();
      await tx.put('counter').value(value + 1);
    });
  const clients = [client, connect(), connect()];
  await Promise.all(Array.from({ length: 60 }, (_, index) => add(clients[index % 3])));
  assert.equal(await client.get('counter').number(), 60);
  await assert.rejects(
    client.stm({ retries: 0 }).transact(async (tx) => {
      await tx.get('counter').number();
      await client.put('counter').value(-1);
      await tx.put('counter').value(1);
    }),
    STMConflictError,
  );
});

etcd('watches', async (client) => {
  await client.put('watched/a').value('1');
  await client.delete().key('watched/a');
  const told = [];
  const watcher = await client.watch().prefix('watched/').startRevision('2').withPreviousKV().create();
  watcher.on('put', (pair) => told.push(`put ${pair.key}=${pair.value}`));
  watcher.on('delete', (pair, previous) => told.push(`delete ${pair.key}, was ${previous.value}`));
  for (let index = 0; index < 50; index++) await client.put('watched/b').value(index);
  await until('all changes', () => told.length >= 52);
  assert.deepEqual(told.slice(0, 3), ['put watched/a=1', 'delete watched/a, was 1', 'put watched/b=0']);
  assert.equal(told[51], 'put watched/b=49');
  const deletes = [];
  const only = await client.watch().prefix('watched/').only('delete').create();
  only.on('data', (answer) => deletes.push(...answer.events));
  await client.put('watched/b').value('x');
  await client.delete().key('watched/b');
  await until('the deletion', () => deletes.length > 0);
  assert.equal(deletes[0].type, 'Delete');
  await watcher.cancel();
  await only.cancel();
});

etcd('a watch goes on after a restart', async (client, { server }) => {
  const watcher = await client.watch().key('key').create();
  const told = [];
  watcher.on('put', (pair) => told.push(pair.value.toString()));
  await client.put('key').value('first');
  await until('the first', () => told.includes('first'));
  await server.kill();
  await server.start();
  await until('a put after the restart', () => client.put('key').value('last').then(() => true, () => false));
  await until('the last', () => told.includes('last'));
});

etcd('leases', async (client) => {
  const lease = client.lease(1);
  await lease.put('leased').value('x');
  let kept = 0;
  lease.on('keepaliveSucceeded', () => kept++);
  await pause(3000);
  assert.equal(await client.get('leased').string(), 'x');
  assert.ok(Number((await lease.keepaliveOnce()).TTL) >= 1);
  assert.ok(kept > 1, `kept ${kept} times`);
  await lease.revoke();
  assert.equal(await client.get('leased').string(), null);

  const left = client.lease(1, { autoKeepAlive: false });
  await left.put('left').value('x');
  await until('the end of the lease', async () => (await client.get('left').string()) === null);
  const lost = once(left, 'lost');
  await assert.rejects(left.keepaliveOnce());
  await lost;
});

etcd('locks', async (client, { connect }) => {
  const first = client.lock('mutex');
  await first.acquire();
  await assert.rejects(connect().lock('mutex').acquire(), EtcdLockFailedError);
  await first.release();
  let inside = 0;
  await client.lock('mutex').do(async () => {
    inside++;
  });
  assert.equal(inside, 1);
});

etcd('elections', async (client, { connect }) => {
  const observer = await connect().election('post').observe();
  const seen = [];
  observer.on('change', (value) => seen.push(value));
  const first = client.election('post').campaign('one');
  await once(first, 'elected');
  await until('the first leader', () => observer.leader() === 'one');
  const second = connect().election('post').campaign('two');
  const elected = once(second, 'elected');
  await first.proclaim('one again');
  await until('what was proclaimed', () => observer.leader() === 'one again');
  await first.resign();
  await elected;
  await until('the second leader', () => observer.leader() === 'two');
  await second.resign();
  await until('no leader', () => observer.leader() === undefined);
  await observer.cancel();
});

etcd('members and maintenance', async (client) => {
  for (let index = 0; index < 100; index++) await client.put(`key/${index}`).value('x'.repeat(1000));
  const { members } = await client.cluster.memberList({});
  assert.deepEqual(members.map((one) => one.name), ['default']);
  const status = await client.maintenance.status();
  assert.match(status.version, /^3\./);
  assert.equal(status.leader, members[0].ID);
  await client.maintenance.defragment();
  const stream = await client.maintenance.snapshot();
  let size = 0;
  stream.on('data', (part) => {
    size += part.blob.length;
  });
  await once(stream, 'end');
  assert.ok(size > 100_000, `${size} bytes`);
  assert.deepEqual(await client.getRoles(), []);
  assert.deepEqual(await client.getUsers(), []);
});
