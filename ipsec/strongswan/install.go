package strongswan

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Packages are Debian's packages that hold what is needed of strongSwan: the daemon, its libraries, AES-GCM, X25519 and
// Ed25519 by OpenSSL, and the vici plugin.
var packages = []string{"charon-systemd", "libstrongswan", "strongswan-libcharon", "libstrongswan-standard-plugins", "strongswan-swanctl"}

// Packages names the Debian packages that are needed.
func Packages() []string { return append([]string(nil), packages...) }

// ErrMissing: strongSwan is not on this machine.
var ErrMissing = fmt.Errorf("strongSwan is missing: %w", errors.ErrUnsupported)

// Installation is where strongSwan is.
type Installation struct {
	Program string `json:"program"` // charon-systemd
	// Root is the directory that Debian's packages were unpacked into; empty: they are installed.
	Root string `json:"root,omitempty"`
}

// program is the daemon in a root.
const program = "usr/sbin/charon-systemd"

// CacheDir is where the packages are unpacked for this user: $XDG_CACHE_HOME/pqlab/strongswan, or ~/.cache/pqlab/strongswan.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("the user's cache: %w", err)
	}
	return filepath.Join(dir, "pqlab", "strongswan"), nil
}

// Find finds strongSwan: the last version that was unpacked into a directory of the cache, or else installed.
func Find(cache string) (Installation, error) {
	versions, err := filepath.Glob(filepath.Join(cache, "[0-9]*")) // sorted
	if err != nil {
		return Installation{}, err
	}
	for _, dir := range slices.Backward(versions) {
		if at := filepath.Join(dir, program); executable(at) {
			return Installation{Program: at, Root: dir}, nil
		}
	}
	if at, err := exec.LookPath("charon-systemd"); err == nil {
		return Installation{Program: at}, nil
	}
	for _, at := range []string{"/" + program, "/usr/libexec/strongswan/charon-systemd"} { // not in everybody's PATH
		if executable(at) {
			return Installation{Program: at}, nil
		}
	}
	return Installation{}, fmt.Errorf("%w: no charon-systemd in $PATH, /usr/sbin or %s; `pqlab vm fetch --strongswan` gets it from Debian's packages and "+
		"installs nothing; elsewhere install strongSwan's charon-systemd and its vici and openssl plugins", ErrMissing, cache)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
