// Preloaded into the conformance suite: its mock servers listen on 127.0.0.1 only.
const dns = require('node:dns');
require('./loopback.cjs');
// The suite reads a server's address right after listen(): a name lookup in between would come too late.
const lookup = dns.lookup;
dns.lookup = (host, options, callback) => {
  const done = typeof options === 'function' ? options : callback;
  if (host !== '127.0.0.1') return lookup(host, options, callback);
  const all = typeof options === 'object' && options !== null && options.all;
  return all ? done(null, [{ address: host, family: 4 }]) : done(null, host, 4);
};
