// Node's HTTP servers: node_server.js http1|http2 PORT. Both answer the same paths, as far as their version knows them.
"use strict";

const crypto = require("crypto");
const http = require("http");
const http2 = require("http2");
const { once } = require("events");

const [version, port] = process.argv.slice(2);
const PIECE = Buffer.from(Array.from({ length: 65521 }, (_, i) => (i * 131 + 7) % 251));

// What clients ended, by the path of the request: the code that was seen here.
const ended = {};
// Answers that wait until /release.
const held = [];
// Answers that are cut off at /go.
const cuts = [];
const open = new Set();
let sessions = 0;

async function read(stream) {
  const digest = crypto.createHash("sha256");
  let length = 0;
  for await (const piece of stream) {
    digest.update(piece);
    length += piece.length;
  }
  return { length, sha256: digest.digest("hex") };
}

// Writes `total` octets, never more than the other side has room for.
async function pour(stream, total) {
  const over = new Promise((go) => stream.once("close", go));
  for (let sent = 0; sent < total && !stream.destroyed; ) {
    const piece = PIECE.subarray(0, Math.min(PIECE.length, total - sent));
    sent += piece.length;
    if (!stream.write(piece)) await Promise.race([over, once(stream, "drain")]);
  }
}

const text = (object) => JSON.stringify(object) + "\n";

async function answer2(stream, headers) {
  const [, what, argument] = headers[":path"].split("/");
  const ok = (more, options) => stream.respond({ ":status": 200, ...more }, options);
  switch (what) {
    case "mirror":
      ok();
      return stream.pipe(stream);
    case "pour":
      ok({ "content-length": argument });
      await pour(stream, Number(argument));
      return stream.end();
    case "trailers": {
      let trailers = {};
      stream.on("trailers", (seen) => (trailers = { ...seen }));
      const seen = await read(stream);
      ok({}, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": seen.sha256, "x-two": ["a", "b"] }));
      return stream.end(text({ trailers }));
    }
    case "early":
      stream.additionalHeaders({ ":status": 103, link: "</a.css>; rel=preload" });
      stream.additionalHeaders({ ":status": 103, link: "</b.css>; rel=preload" });
      ok();
      return stream.end("late");
    case "continue": {
      stream.additionalHeaders({ ":status": 100 });
      const seen = await read(stream);
      ok();
      return stream.end(text(seen));
    }
    case "reset":
      return stream.close(Number(argument));
    case "cut":
      ok();
      // With more to send than there is room for: otherwise Node ends the answer before it resets the stream.
      cuts.push(() => stream.close(Number(argument)));
      return pour(stream, 1 << 30);
    case "go":
      ok();
      for (const cut of cuts.splice(0)) cut();
      return stream.end();
    case "stay":
      ok();
      stream.write("here");
      stream.on("close", () => (ended[argument] = stream.rstCode));
      return;
    case "ended":
      ok();
      return stream.end(text({ code: ended[argument] }));
    case "hold":
      held.push(stream);
      ok();
      return stream.write("held ");
    case "goaway":
      // What is in flight goes on, this answer too, but no connection takes another request.
      ok();
      stream.end(text({ held: held.length }));
      for (const session of open) session.close();
      return;
    case "release":
      ok();
      stream.end(text({ released: held.length }));
      for (const one of held.splice(0)) one.end("released");
      return;
    case "sessions":
      ok();
      return stream.end(text({ sessions }));
    case "ping":
      return stream.session.ping(Buffer.from("8 octets"), (error, _, payload) => {
        ok();
        stream.end(text({ error, payload: payload && payload.toString() }));
      });
    case "settings":
      return stream.session.settings(JSON.parse(headers["x-settings"]), (error) => {
        ok();
        stream.end(text({ error }));
      });
    default:
      ok({ "x-method": headers[":method"] });
      return stream.end(text({ path: headers[":path"], ...(await read(stream)) }));
  }
}

async function answer1(request, response) {
  const [, what, argument] = request.url.split("/");
  switch (what) {
    case "mirror":
      return request.pipe(response);
    case "pour":
      response.setHeader("content-length", argument);
      await pour(response, Number(argument));
      return response.end();
    case "trailers": {
      response.setHeader("trailer", "x-sum, x-two");
      const seen = await read(request);
      response.write(text({ trailers: request.trailers }));
      response.addTrailers([["x-sum", seen.sha256], ["x-two", "a"], ["x-two", "b"]]);
      return response.end();
    }
    case "early":
      return response.writeEarlyHints({ link: "</a.css>; rel=preload" }, () =>
        response.writeEarlyHints({ link: "</b.css>; rel=preload" }, () => response.end("late")),
      );
    case "stay": {
      // A client that closes may have half-closed; only who writes to it learns that it is gone.
      const often = setInterval(() => response.write("here"), 20);
      return response.on("close", () => {
        clearInterval(often);
        ended[argument] = "closed";
      });
    }
    case "ended":
      return response.end(text({ code: ended[argument] }));
    case "cut":
      cuts.push(() => request.socket.destroy());
      return response.write("some");
    case "go":
      for (const cut of cuts.splice(0)) cut();
      return response.end();
    case "sessions":
      return response.end(text({ sessions }));
    default:
      response.setHeader("x-method", request.method);
      return response.end(text({ path: request.url, ...(await read(request)) }));
  }
}

let server;
if (version === "http2") {
  server = http2.createServer();
  server.on("stream", (stream, headers) => {
    // A stream that its client ends is seen by "close"; the rest is the client's to tell.
    stream.on("error", () => {});
    answer2(stream, headers).catch((error) => stream.destroyed || stream.destroy(error));
  });
  server.on("session", (session) => {
    sessions += 1;
    open.add(session);
    session.on("close", () => open.delete(session));
  });
} else {
  server = http.createServer((request, response) => {
    answer1(request, response).catch((error) => response.destroy(error));
  });
  server.on("connection", () => (sessions += 1));
  server.on("checkContinue", (request, response) => {
    if (request.url === "/refuse") return response.writeHead(417, { connection: "close" }).end();
    response.writeContinue();
    return answer1(request, response).catch((error) => response.destroy(error));
  });
  server.on("upgrade", (request, socket) => {
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: ${request.headers.upgrade}\r\nConnection: upgrade\r\n\r\n`);
    socket.pipe(socket);
  });
}
server.listen(Number(port), "127.0.0.1", () => console.log("listening"));
