package strongswan

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	Program string // charon-systemd
	// Root is the directory that Debian's packages were unpacked into; empty: they are installed.
	Root string
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

// Find finds strongSwan: unpacked in a directory (see Fetch), or else installed.
func Find(unpacked string) (Installation, error) {
	if unpacked != "" {
		if at := filepath.Join(unpacked, program); executable(at) {
			return Installation{Program: at, Root: unpacked}, nil
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
		"installs nothing; elsewhere install strongSwan's charon-systemd and its vici and openssl plugins", ErrMissing, unpacked)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
