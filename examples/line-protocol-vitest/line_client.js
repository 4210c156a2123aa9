import { once } from 'node:events';

/** A client of a key-value store: lines `SET key value` and `GET key`, each answered by one line. */
export class LineClient {
  #socket;
  #buffer = '';
  #waiting = [];

  /** @param socket a connected socket of node:net or tapnic */
  constructor(socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text) => this.#received(text));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the connection is closed')));
  }

  set(key, value) {
    return this.#ask(`SET ${key} ${value}`);
  }

  get(key) {
    return this.#ask(`GET ${key}`);
  }

  async close() {
    this.#socket.end();
    if (!this.#socket.closed) await once(this.#socket, 'close');
  }

  #ask(line) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${line}\n`);
    });
  }

  #received(text) {
    const lines = (this.#buffer + text).split('\n');
    this.#buffer = lines.pop();
    for (const line of lines) this.#waiting.shift()?.resolve(line);
  }

  #fail(error) {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
