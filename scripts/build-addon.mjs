console.log("build-addon: no sources yet");
