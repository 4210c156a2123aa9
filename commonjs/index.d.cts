/**
 * The types of `require('tapnic')`. They are those of the ES module, in a form that a CommonJS file
 * may use with every setting of `module`: TypeScript's node16 and node18 do not accept that a
 * CommonJS file requires an ES module. A value is declared here by name.
 */

import type * as api from '../dist/src/index.js' with { 'resolution-mode': 'import' };

export type * from '../dist/src/index.js' with { 'resolution-mode': 'import' };

export declare const SF_FLAGS: typeof api.SF_FLAGS;
export declare const SF_NOCACHE: typeof api.SF_NOCACHE;
export declare const SF_NODISKIO: typeof api.SF_NODISKIO;
export declare const SF_SYNC: typeof api.SF_SYNC;
export declare const SF_USER_READAHEAD: typeof api.SF_USER_READAHEAD;
export declare const connect: typeof api.connect;
export declare const createLink: typeof api.createLink;
export declare const createServer: typeof api.createServer;
export declare const createStack: typeof api.createStack;
export declare const openFile: typeof api.openFile;
export declare const stackInWorker: typeof api.stackInWorker;
export declare const tuntap: typeof api.tuntap;

export declare const Server: typeof api.Server;
export type Server = api.Server;
export declare const Socket: typeof api.Socket;
export type Socket = api.Socket;
export declare const Tap: typeof api.Tap;
export type Tap = api.Tap;
export declare const TapnicError: typeof api.TapnicError;
export type TapnicError = api.TapnicError;
export declare const Tun: typeof api.Tun;
export type Tun = api.Tun;
