// Starts the demo, a gate in front of its app, and a proxy that ends TLS in front of that; then grades what comes out.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createInterface } from "node:readline";

import { ALL_TESTS } from "@mdn/mdn-http-observatory/src/constants.js";
import { MINIMUM_SCORE_FOR_EXTRA_CREDIT } from "@mdn/mdn-http-observatory/src/grader/charts.js";
import { getGradeForScore, getScoreModifier } from "@mdn/mdn-http-observatory/src/grader/grader.js";
import { retrieve } from "@mdn/mdn-http-observatory/src/retriever/retriever.js";

const WANTED = "A+";
const ANY_PORT = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
const [program, scratch] = process.argv.slice(2);
const started = [];

/// Starts the program; the addresses that it prints, by the word before each, once `last` is among them.
async function start(args, stream, last) {
  const child = spawn(program, [...args, ...ANY_PORT], { env: {}, stdio: ["ignore", "pipe", "pipe"] });
  started.push(child);
  const other = stream === "stdout" ? "stderr" : "stdout";
  child[other].resume();
  const addresses = {};
  for await (const line of createInterface({ input: child[stream] })) {
    for (const [, word, address] of line.matchAll(/(\w+)\s+(?:on )?http:\/\/([\d.]+:\d+)/g)) addresses[word] = address;
    if (last in addresses) {
      child[stream].resume();
      return addresses;
    }
  }
  throw new Error(`${program} ${args[0]} ended without telling its addresses`);
}

/// A proxy as operators put one in front: TLS here, plain text behind, and it says so.
function endTls(gate) {
  const tls = { key: readFileSync(`${scratch}/key.pem`), cert: readFileSync(`${scratch}/cert.pem`) };
  return https.createServer(tls, (request, response) => {
    const headers = { ...request.headers, "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1" };
    const [host, port] = gate.split(":");
    const onward = http.request({ host, port, method: request.method, path: request.url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
}

async function policy(gate) {
  return (await fetch(`http://${gate}/`)).headers.get("content-security-policy");
}

async function listening(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server.address().port;
}

/// The score as the Observatory's own scan() counts it, which can't be told a port.
function grade(found) {
  const results = ALL_TESTS.map((test) => test(found));
  const modifiers = results.filter(({ result }) => result).map(({ result }) => getScoreModifier(result));
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 100);
  const plain = sum(modifiers.filter((modifier) => modifier < 0));
  const score = plain >= MINIMUM_SCORE_FOR_EXTRA_CREDIT ? sum(modifiers) : plain;
  return { ...getGradeForScore(score), results };
}

try {
  const demo = await start(["demo"], "stdout", "upstream");
  const graded = ["run", "-c", "gate.yaml", "--upstream", `http://${demo.upstream}`];
  const { traffic } = await start(graded, "stderr", "traffic");
  const policies = await Promise.all([demo.gate, traffic].map(policy));
  if (policies[0] !== policies[1]) throw new Error(`the demo itself has another policy: ${policies[0]}`);
  const httpsPort = await listening(endTls(traffic));
  const toTls = http.createServer((request, response) => {
    response.writeHead(301, { location: `https://localhost:${httpsPort}${request.url}` }).end();
  });
  const httpPort = await listening(toTls);
  const found = await retrieve("localhost", { httpPort, httpsPort });
  if (found.responses.https?.status !== 200 || !found.responses.https.verified) {
    throw new Error(`the page can't be had over TLS: ${found.responses.https?.status}`);
  }
  const { grade: got, score, results } = grade(found);
  for (const { constructor, result } of results) {
    if (result) {
      console.log(`${String(getScoreModifier(result)).padStart(4)}  ${constructor.name}: ${result}`);
    }
  }
  console.log(`grade ${got}, score ${score} (wanted: ${WANTED})`);
  process.exitCode = got === WANTED ? 0 : 1;
} catch (error) {
  console.error(`observatory: ${error.message}`);
  process.exitCode = 1;
} finally {
  started.forEach((child) => child.kill());
}
process.exit();
