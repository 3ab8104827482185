/* stub.c - what stands for each library of a simulated driver: a real shared object that does nothing.
 * The engine copies it under each name and writes that name over its SONAME, which is therefore as
 * long as any of them. */
extern const char simulated_driver_library[];
__attribute__((visibility("default"))) const char simulated_driver_library[] =
        "simulated: this is no NVIDIA library";
