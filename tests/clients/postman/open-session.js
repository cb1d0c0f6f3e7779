// Some requests end the session. The next one logs in again, as every client does once it is no longer known.
const url = (text) => pm.variables.replaceIn(text);

const logIn = () => pm.sendRequest({
    url: url("LOGIN"),
    method: "POST",
    header: {"Content-Type": "application/json"},
    body: {
        mode: "raw",
        raw: JSON.stringify({username: pm.environment.get("username"), password: pm.environment.get("password")}),
    },
}, (error, answer) => {
    if (error) throw error;
    if (answer.code === 429) {
        setTimeout(logIn, 1000 * Number(answer.headers.get("Retry-After") || 1));
        return;
    }
    pm.environment.set("accessToken", answer.json().access);
    pm.environment.set("refreshToken", answer.json().refresh);
});

pm.sendRequest({
    url: url("ACCOUNT"),
    header: {Authorization: "Bearer " + pm.environment.get("accessToken")},
}, (error, answer) => {
    if (error) throw error;
    if (answer.code === 401) logIn();
});
