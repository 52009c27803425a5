package rootless

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// diagnose says why the kernel refused with err. root is the root of the file system, for /proc.
func diagnose(root fs.FS, err error) *UnavailableError {
	read := func(name string) string {
		b, _ := fs.ReadFile(root, name)
		return strings.TrimSpace(string(b))
	}
	e := &UnavailableError{Err: err}
	switch {
	case read("proc/sys/user/max_user_namespaces") == "0":
		e.Reason = "user namespaces are switched off (user.max_user_namespaces = 0)"
		e.Remedy = "run as root, or: sysctl user.max_user_namespaces=10000"
	case read("proc/sys/kernel/unprivileged_userns_clone") == "0":
		e.Reason = "only root may make user namespaces (kernel.unprivileged_userns_clone = 0)"
		e.Remedy = "run as root, or: sysctl kernel.unprivileged_userns_clone=1"
	case read("proc/sys/user/max_net_namespaces") == "0":
		e.Reason = "network namespaces are switched off (user.max_net_namespaces = 0)"
		e.Remedy = "sysctl user.max_net_namespaces=10000"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		e.Reason = "too many user, network or mount namespaces exist, or they are nested too deeply"
		e.Remedy = "end what holds them, or raise the limits in /proc/sys/user"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, fs.ErrNotExist):
		e.Reason = "the kernel has no user namespaces (CONFIG_USER_NS) or no network namespaces (CONFIG_NET_NS)"
		e.Remedy = "run as root where only the former are missing; otherwise another kernel is needed"
	case read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		e.Reason = "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1)"
		e.Remedy = `run as root, give pqlab an AppArmor profile with the rule "userns,", or: sysctl kernel.apparmor_restrict_unprivileged_userns=0`
	case strings.Contains(read("proc/self/status"), "Seccomp:\t2"):
		e.Reason = "a seccomp filter forbids user namespaces, as container runtimes do"
		e.Remedy = "start the container with --cap-add SYS_ADMIN --cap-add NET_ADMIN, or with a seccomp profile that allows clone(CLONE_NEWUSER)"
	default:
		e.Reason = "the kernel refuses a user namespace: a security module, a chroot, or a user whom the surrounding container does not map"
		e.Remedy = "run as root, or outside of the container or chroot"
	}
	return e
}
