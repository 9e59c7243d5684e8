//! The framings of exec, attach, port-forward and logs: SPDY/3.1 and the WebSocket
//! channel protocols. Bytes in, frames out; knows no socket.
