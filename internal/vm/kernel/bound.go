package kernel

import "runtime"

// bound calls f on a thread that nothing else uses meanwhile and that lives until f returns. The kernel sends a child's
// parent-death signal when the thread that started it ends, not when the process does.
func bound(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}
