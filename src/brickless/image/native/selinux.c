/* In place of libselinux, for Debian's LXC programs on a device that has no SELinux policy: it is never on. */

int is_selinux_enabled(void);
int getpidcon_raw(int pid, char **context);
int setcon_raw(const char *context);
int setexeccon_raw(const char *context);
int setkeycreatecon_raw(const char *context);

int
is_selinux_enabled(void)
{
    return 0;
}

int
getpidcon_raw(int pid, char **context)
{
    (void)pid;
    *context = 0;
    return -1;
}

int
setcon_raw(const char *context)
{
    (void)context;
    return -1;
}

int
setexeccon_raw(const char *context)
{
    (void)context;
    return -1;
}

int
setkeycreatecon_raw(const char *context)
{
    (void)context;
    return -1;
}
