"""The admin API: what a tenant's admin may see and change. The door lets nobody in without the scope `admin`."""
