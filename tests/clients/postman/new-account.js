// Nobody else's name, so that the collection can be run any number of times; and a password that does not resemble it.
const random = () => pm.variables.replaceIn("{{$guid}}");
pm.environment.set("username", "postman-" + random().slice(-12));
pm.environment.set("password", random() + random());
