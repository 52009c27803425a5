//go:build !race

package combine

// stride is every how many bits or bytes a sweep stops: at each.
const stride = 1
