-- What one slice of load sends, for wrk: https://github.com/wg/wrk
--
-- First argument: a file with one request a line, tab-separated: method, path, token, body; sent in turn, again and
-- again. Second argument "chain": each is sent once, and the refresh token in its answer makes the next one.
-- Prints one line of JSON.

local requests, first, last = {}, 1, 0
local chained = false

local function format(method, path, token, body)
  local headers = {["Accept"] = "application/json", ["Accept-Encoding"] = "gzip"}
  if token ~= "" then headers["Authorization"] = "Bearer " .. token end
  if body ~= "" then headers["Content-Type"] = "application/json" end
  return wrk.format(method, path, headers, body ~= "" and body or nil)
end

local function chain(status, headers, body)
  local token = status == 200 and body:match('"refresh": ?"([^"]+)"')
  if token then
    last = last + 1
    requests[last] = format("POST", path_of_chain, "", '{"refresh": "' .. token .. '"}')
  end
end

function init(arguments)
  chained = arguments[2] == "chain"
  for line in io.lines(arguments[1]) do
    local method, path, token, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    last = last + 1
    requests[last] = format(method, path, token, body)
    path_of_chain = path
  end
  if chained then response = chain end
end

function request()
  local found = requests[first]
  if chained then requests[first] = nil end
  first = first + 1
  if first > last and not chained then first = 1 end
  return found
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d, "refused": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
