//go:build race

package handshake

// stride is every how many bytes a sweep stops. Under the race detector an exchange takes ten times as long, and finds
// no other races at another byte.
const stride = 16
