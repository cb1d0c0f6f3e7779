// The service slows down whoever logs in often: wait as long as it asks for, then send the same request again.
if (pm.response.code === 429) {
    pm.execution.setNextRequest(pm.info.requestId);
    setTimeout(() => {}, 1000 * Number(pm.response.headers.get("Retry-After") || 1));
}
